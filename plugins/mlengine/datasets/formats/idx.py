"""IDX, the format of MNIST: a header and rows, optionally compressed with gzip.

A split is two files, one with images and one with labels.

::

    2 zero bytes · type code · number of dimensions · each dimension as a big-endian uint32 · the values, row by row

Memory usage is one batch of rows, independent of the file's size.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from mlengine.core.errors import DatasetError
from mlengine.datasets.formats.base import Format
from mlengine.datasets.sources import SourceFile

if TYPE_CHECKING:
    import pyarrow as pa

# type code → (numpy name, bytes)
_TYPES = {
    0x08: ("uint8", 1),
    0x09: ("int8", 1),
    0x0B: ("int16", 2),
    0x0C: ("int32", 4),
    0x0D: ("float32", 4),
    0x0E: ("float64", 8),
}
_HINT = "give IDX files as MNIST has them, whole, packed with gzip or not"


@dataclass(frozen=True)
class IdxHeader:
    """The header of an IDX file. ``shape`` is the shape of one row; ``()`` for labels."""

    rows: int
    shape: tuple[int, ...]
    dtype: str
    row_bytes: int
    type_code: int = 0x08

    @property
    def length(self) -> int:
        """The size of the header in bytes."""
        return 4 + 4 * (1 + len(self.shape))

    @property
    def total(self) -> int:
        """The size of the whole uncompressed file in bytes."""
        return self.length + self.rows * self.row_bytes


def header_bytes(rows: int, shape: Sequence[int] = (), type_code: int = 0x08) -> bytes:
    """The encoded header for a new file."""
    return struct.pack(f">BBBB{1 + len(shape)}I", 0, 0, type_code, 1 + len(shape), rows, *shape)


class Idx(Format):
    """The IDX format; see :class:`~mlengine.datasets.formats.base.Format`."""

    name = "idx"
    suffixes = ("-ubyte", ".idx", "-idx1", "-idx2", "-idx3", "-idx4")
    compressible = True

    def infer(self, files: Sequence[SourceFile], dtypes: Mapping[str, str]) -> pa.Schema:
        import pyarrow as pa

        del dtypes
        self.row_counts(files)
        headers = [_header(file) for file in paired(files)]
        fields = []
        for column, header in zip(("image", "label"), headers, strict=True):
            value = getattr(pa, header.dtype)()
            kind = pa.fixed_shape_tensor(value, header.shape) if len(header.shape) > 1 else value
            fields.append(
                pa.field(column, pa.list_(value, header.shape[0]) if len(header.shape) == 1 else kind, nullable=False)
            )
        return pa.schema(fields)

    def row_counts(self, files: Sequence[SourceFile]) -> list[int] | None:
        """The number of rows in each file, from the headers.

        :raises DatasetError: the numbers of labels and images differ, or are 0.
        """
        images, labels = paired(files)
        rows = _header(images).rows, _header(labels).rows
        if rows[0] != rows[1] or rows[0] == 0:
            raise DatasetError(
                f"{images.where} has {rows[0]} images, {labels.where} {rows[1]} labels",
                hint="write one label for each image",
            )
        return [rows[0]] * len(files)

    def count_rows(self, files: Sequence[SourceFile]) -> int | None:
        counts = self.row_counts(files)
        return counts[0] if counts else None

    def batches(
        self,
        files: Sequence[SourceFile],
        schema: pa.Schema,
        rows: int,
        *,
        sample_bytes: int | None = None,
        strict: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        del strict  # the columns are those of the file
        import pyarrow as pa

        self.row_counts(files)
        left = sample_bytes
        with ExitStack() as stack:
            columns = [
                _arrays(stack.enter_context(opened(file)), file, schema.field(name).type, rows)
                for name, file in zip(("image", "label"), paired(files), strict=True)
                if name in schema.names
            ]
            order = [name for name in ("image", "label") if name in schema.names]
            for arrays in zip(*columns, strict=True):
                found = dict(zip(order, arrays, strict=True))
                batch = pa.RecordBatch.from_arrays([found[name] for name in schema.names], schema=schema)
                yield batch
                if left is not None and (left := left - batch.nbytes) <= 0:
                    return


def column_of_file(path: str) -> str:
    """The column that a file contains, derived from its name."""
    return "label" if "label" in path.rsplit("/", 1)[-1] else "image"


def paired(files: Sequence[SourceFile]) -> tuple[SourceFile, SourceFile]:
    """The image file and the label file of a split.

    :raises DatasetError: there is not one file of each.
    """
    found: dict[str, list[SourceFile]] = {"image": [], "label": []}
    for file in files:
        found[column_of_file(file.path)].append(file)
    for column, those in found.items():
        if len(those) != 1:
            names = ", ".join(file.where for file in files)
            raise DatasetError(
                f"{len(those)} IDX files of {column}s in one split, 1 is needed: {names}",
                hint="name them as MNIST does: train-images-idx3-ubyte, train-labels-idx1-ubyte, heldout-…",
            )
    return found["image"][0], found["label"][0]


def _header(file: SourceFile) -> IdxHeader:
    with opened(file) as stream:
        header = read_header(stream, file.where)
    if header.row_bytes == 0:
        raise DatasetError(f"{file.where}: a dimension is 0 in its header", hint=_HINT)
    return header


def _arrays(stream: BinaryIO, file: SourceFile, kind: pa.DataType, rows: int) -> Iterator[pa.Array]:
    import numpy as np
    import pyarrow as pa

    header = read_header(stream, file.where)
    stored = np.dtype(header.dtype).newbyteorder(">")
    for data in batches(stream, header, file.where, rows):
        values = pa.array(np.frombuffer(data, stored).astype(header.dtype))
        if not header.shape:
            yield values.cast(kind)
            continue
        flat = pa.FixedSizeListArray.from_arrays(values, math.prod(header.shape))
        yield pa.ExtensionArray.from_storage(kind, flat) if isinstance(kind, pa.ExtensionType) else flat.cast(kind)


@contextmanager
def opened(file: SourceFile) -> Iterator[BinaryIO]:
    """The uncompressed bytes of ``file``.

    :raises DatasetError: the file cannot be read, or its compression is damaged.
    """
    try:
        with file.open() as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=cast("BinaryIO", raw)) as stream:
                    yield cast("BinaryIO", stream)
            else:
                yield cast("BinaryIO", raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(
            f"{file.where}: its gzip compression is damaged or cut short: {error}", hint=_HINT
        ) from error
    except OSError as error:
        raise DatasetError(f"{file.where} cannot be read: {error.strerror or error}", hint=_HINT) from error


def read_header(stream: BinaryIO, where: str) -> IdxHeader:
    """Read the header from a stream.

    :raises DatasetError: this is not an IDX file; the error shows how it begins.
    """
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] == 0:
        raise DatasetError(f"{where}: not an IDX file: it begins with {magic.hex(' ') or 'nothing'}", hint=_HINT)
    dtype, size = _TYPES[magic[2]]
    raw = stream.read(4 * magic[3])
    if len(raw) < 4 * magic[3]:
        raise DatasetError(f"{where}: cut short inside its header", hint=_HINT)
    rows, *shape = struct.unpack(f">{magic[3]}I", raw)
    return IdxHeader(rows, tuple(shape), dtype, size * math.prod(shape), magic[2])


def batches(stream: BinaryIO, header: IdxHeader, where: str, rows: int) -> Iterator[bytes]:
    """The values of ``rows`` rows at a time.

    :raises DatasetError: the file's size does not match its header.
    """
    done = 0
    while done < header.rows:
        wanted = min(rows, header.rows - done) * header.row_bytes
        data = _read_fully(stream, wanted)
        if len(data) < wanted:
            found = done + len(data) / header.row_bytes
            raise DatasetError(f"{where}: its header says {header.rows} rows, it has {found:.10g}", hint=_HINT)
        done += wanted // header.row_bytes
        yield data
    if stream.read(1):
        raise DatasetError(f"{where}: bytes are left after the {header.rows} rows of its header", hint=_HINT)


def _read_fully(stream: BinaryIO, wanted: int) -> bytes:
    """Read ``wanted`` bytes. One read of a gzip stream may return fewer bytes even before the end."""
    parts = []
    while wanted > 0 and (part := stream.read(wanted)):
        parts.append(part)
        wanted -= len(part)
    return b"".join(parts)


FORMAT = Idx()
