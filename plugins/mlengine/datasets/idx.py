"""The IDX format that MNIST comes in: header and rows, read as a stream, packed (``.gz``) or not.

::

    2 zero bytes · type code · number of dimensions · each dimension as a big-endian uint32 · the values, row by row

Standard library only; memory is one batch of rows, however large the file.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from mlengine.core.errors import DatasetError

# type code → (name as numpy has it, bytes)
_TYPES = {
    0x08: ("uint8", 1),
    0x09: ("int8", 1),
    0x0B: ("int16", 2),
    0x0C: ("int32", 4),
    0x0D: ("float32", 4),
    0x0E: ("float64", 8),
}
_BATCH_BYTES = 1 << 20
_REMEDY = "give IDX files as MNIST has them, whole, packed with gzip or not"


@dataclass(frozen=True)
class IdxHeader:
    """What the file says that it holds. ``shape`` is one row's; ``()`` for a list of labels."""

    rows: int
    shape: tuple[int, ...]
    dtype: str
    row_bytes: int
    type_code: int = 0x08

    @property
    def length(self) -> int:
        """Bytes of the header itself."""
        return 4 + 4 * (1 + len(self.shape))

    @property
    def total(self) -> int:
        """Bytes of the whole file, unpacked."""
        return self.length + self.rows * self.row_bytes


def header_bytes(rows: int, shape: Sequence[int] = (), type_code: int = 0x08) -> bytes:
    """The header of a file that is about to be written."""
    return struct.pack(f">BBBB{1 + len(shape)}I", 0, 0, type_code, 1 + len(shape), rows, *shape)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The unpacked bytes of ``path``. What is wrong with its compression is a DatasetError too."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=raw) as stream:
                    yield cast("BinaryIO", stream)
            else:
                yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(f"{path}: its gzip packing is damaged or cut short: {error}", hint=_REMEDY) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}", hint=_REMEDY) from error


def read_header(stream: BinaryIO, path: Path) -> IdxHeader:
    """:raises DatasetError: this is no IDX file; says what stands there instead."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] == 0:
        raise DatasetError(f"{path}: no IDX file: it begins with {magic.hex(' ') or 'nothing'}", hint=_REMEDY)
    dtype, size = _TYPES[magic[2]]
    raw = stream.read(4 * magic[3])
    if len(raw) < 4 * magic[3]:
        raise DatasetError(f"{path}: cut short inside its header", hint=_REMEDY)
    rows, *shape = struct.unpack(f">{magic[3]}I", raw)
    return IdxHeader(rows, tuple(shape), dtype, size * math.prod(shape), magic[2])


def batches(stream: BinaryIO, header: IdxHeader, path: Path) -> Iterator[bytes]:
    """Whole rows, about a MiB at a time.

    :raises DatasetError: the file has fewer or more bytes than its header says.
    """
    if header.row_bytes == 0:
        raise DatasetError(f"{path}: a dimension is 0 in its header", hint=_REMEDY)
    per_batch = max(1, _BATCH_BYTES // header.row_bytes)
    done = 0
    while done < header.rows:
        wanted = min(per_batch, header.rows - done) * header.row_bytes
        data = _read_fully(stream, wanted)
        if len(data) < wanted:
            rows = done + len(data) / header.row_bytes
            raise DatasetError(f"{path}: its header says {header.rows} rows, it has {rows:.10g}", hint=_REMEDY)
        done += wanted // header.row_bytes
        yield data
    if stream.read(1):
        raise DatasetError(f"{path}: bytes are left after the {header.rows} rows of its header", hint=_REMEDY)


def hashes(batch: bytes, header: IdxHeader) -> list[bytes]:
    """16 bytes for each row of a batch: equal rows have equal hashes."""
    rows, step = memoryview(batch), header.row_bytes
    return [hashlib.blake2b(rows[at : at + step], digest_size=16).digest() for at in range(0, len(batch), step)]


def _read_fully(stream: BinaryIO, wanted: int) -> bytes:
    """A gzip stream may give less than asked for before its end."""
    parts = []
    while wanted > 0 and (part := stream.read(wanted)):
        parts.append(part)
        wanted -= len(part)
    return b"".join(parts)
