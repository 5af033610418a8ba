"""Computes a 64-bit hash of each row of a batch, to find equal rows in data of any size.

Equal rows have equal hashes; different rows have equal hashes with a probability of about 2^-64. The hash does not
resist deliberate collisions.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from mlengine.core.dataset import Column, Schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_LONG = 256  # a string with more bytes is hashed separately
_MULTIPLIER = 0x9E3779B97F4A7C15
_NULL = 0xD6E8FEB86659FD93


def compared_columns(schema: Schema) -> tuple[Column, ...]:
    """The columns that must be equal in equal rows: all but key and weight.

    With images and other tensors, the target is left out too, because an image with two labels is still one image.
    """
    tensors = any(column.shape or column.dtype == "binary" for column in schema.columns)
    left_out = {schema.key, schema.weight} | ({schema.target} if tensors else set())
    return tuple(column for column in schema.columns if column.name not in left_out)


def row_hashes(batch: pa.RecordBatch, columns: tuple[Column, ...]) -> np.ndarray[Any, Any]:
    """One ``uint64`` hash per row.

    :param columns: the columns to hash, matched by name.
    """
    import numpy as np

    total = np.zeros(len(batch), np.uint64)
    random = np.random.default_rng(20260601)
    for column in columns:
        factor = random.integers(0, 1 << 63, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        total += _folded(_column_hashes(batch.column(column.name), column)) * factor
    return _folded(total * np.uint64(_MULTIPLIER))


def _folded(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mix the upper bits into the lower ones: floats differ in upper bits, and products keep only lower bits."""
    import numpy as np

    folded: np.ndarray[Any, Any] = values ^ (values >> np.uint64(32))
    return folded


def _column_hashes(array: pa.Array, column: Column) -> np.ndarray[Any, Any]:
    import numpy as np
    import pyarrow.compute as pc

    if column.shape == (-1,):
        found = _list_hashes(array)
    elif column.shape:
        found = _tensor_hashes(array)
    elif column.dtype in ("string", "binary"):
        found = _repeated_text_hashes(array)
    else:
        found = _number_words(array)
    if array.null_count:
        valid = pc.is_valid(array).to_numpy(zero_copy_only=False)
        found = np.where(valid, found, np.uint64(_NULL))
    return found


def _number_words(array: pa.Array) -> np.ndarray[Any, Any]:
    """The bits of the values as 64-bit words."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_timestamp(kind):
        array = array.view(pa.int64())
    elif pa.types.is_date(kind):
        array = array.view(pa.int32())
    if array.null_count:
        array = pc.fill_null(array, pa.scalar(0, pa.int8()).cast(array.type))
    values = array.to_numpy(zero_copy_only=False)
    wide = np.float64 if values.dtype.kind == "f" else np.uint64 if values.dtype == np.uint64 else np.int64
    return np.ascontiguousarray(values, wide).view(np.uint64)


def _repeated_text_hashes(array: pa.Array) -> np.ndarray[Any, Any]:
    """The hashes of a column with few distinct values. Each distinct value is hashed once."""
    import pyarrow.compute as pc

    head = array.slice(0, 512)
    if len(array) < 4 * len(head) or len(pc.unique(head)) > len(head) // 2:
        return _text_hashes(array)
    encoded = array.dictionary_encode()
    indices = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    if len(encoded.dictionary) == 0:
        return _text_hashes(array)
    found: np.ndarray[Any, Any] = _text_hashes(encoded.dictionary)[indices]
    return found


def _text_hashes(array: pa.Array) -> np.ndarray[Any, Any]:
    """The hashes of strings, from their length and words of eight bytes, each multiplied by a positional factor."""
    import numpy as np

    _, offsets_buffer, data = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    if len(offsets) == 0:
        return np.zeros(0, np.uint64)
    size = int(offsets[-1] - offsets[0])
    padded = np.zeros(size // 8 * 8 + 24, np.uint8)
    if data is not None:
        padded[:size] = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    words = padded.view(np.uint64)
    found = lengths.astype(np.uint64)
    random = np.random.default_rng(7)
    active = np.flatnonzero((lengths > 0) & (lengths <= _LONG))
    position = 0
    while len(active):
        factor = random.integers(0, 1 << 63, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        part = _words_at(words, starts[active] + position, np.minimum(lengths[active] - position, 8))
        found[active] += _folded(part * factor) * factor
        position += 8
        active = active[lengths[active] > position]
    for row in np.flatnonzero(lengths > _LONG):
        text = padded[starts[row] : starts[row] + lengths[row]]
        found[row] = int.from_bytes(hashlib.blake2b(text.data, digest_size=8).digest(), "little")
    return found


def _words_at(
    words: np.ndarray[Any, Any], places: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """The 1 to 8 bytes (``lengths``) at each position of the bytes in ``words``, as words."""
    import numpy as np

    index, shift = places >> 3, ((places & 7) << 3).astype(np.uint64)
    found: np.ndarray[Any, Any] = words[index] >> shift
    found |= (words[index + 1] << np.uint64(1)) << (np.uint64(63) - shift)
    found &= np.uint64(0xFFFFFFFFFFFFFFFF) >> (np.uint64(64) - (lengths << 3).astype(np.uint64))
    return found


def _tensor_hashes(array: pa.Array) -> np.ndarray[Any, Any]:
    import numpy as np
    import pyarrow as pa

    storage = array.storage if isinstance(array, pa.ExtensionArray) else array
    width = storage.type.list_size
    flat = storage.values.slice(storage.offset * width, len(storage) * width)
    if flat.type in _text_types():
        words = _folded(_text_hashes(flat).reshape(len(storage), width))
    else:
        words = _folded(_tensor_words(_plain(flat).reshape(len(storage), width)))
    factors = np.random.default_rng(11).integers(0, 1 << 63, words.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    found: np.ndarray[Any, Any] = (words * factors).sum(axis=1, dtype=np.uint64)
    return found


def _tensor_words(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The bytes of each row as 64-bit words."""
    import numpy as np

    data = values.view(np.uint8) if values.dtype.kind != "b" else values.astype(np.uint8)
    spare = -data.shape[1] % 8
    if spare:
        data = np.pad(data, ((0, 0), (0, spare)))
    return np.ascontiguousarray(data).view(np.uint64)


def _list_hashes(array: pa.Array) -> np.ndarray[Any, Any]:
    import numpy as np

    offsets = array.offsets.to_numpy().astype(np.int64)
    flat = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    text = flat.type in _text_types()
    words = _text_hashes(flat) if text else _number_words(flat)
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    position = np.arange(len(words), dtype=np.int64) - np.repeat(starts, lengths)
    terms = _folded(words) * (position.astype(np.uint64) * np.uint64(2) + np.uint64(_MULTIPLIER))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_folded(terms), dtype=np.uint64)])
    found: np.ndarray[Any, Any] = sums[starts + lengths] - sums[starts] + lengths.astype(np.uint64)
    return found


def _text_types() -> tuple[Any, ...]:
    import pyarrow as pa

    return pa.string(), pa.binary()


def _plain(flat: pa.Array) -> np.ndarray[Any, Any]:
    import pyarrow as pa

    zero = False if pa.types.is_boolean(flat.type) else 0
    found: np.ndarray[Any, Any] = flat.fill_null(zero).to_numpy(zero_copy_only=False)
    return found
