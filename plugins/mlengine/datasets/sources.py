"""The files from which rows are read: local files, or objects in a bucket, which are read without a local copy."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from mlengine.core.errors import DatasetError, MlengineError, ObjectMissingError, StorageConflictError
from mlengine.storage.client import ObjectStat, Storage

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 8 << 20  # bytes per request for a part of an object
_GZIP = b"\x1f\x8b"


class SourceFile(Protocol):
    """A file that can be opened any number of times.

    ``path`` is relative to the root of the version; ``where`` is the file's name in messages.
    """

    @property
    def path(self) -> str: ...

    @property
    def where(self) -> str: ...

    @property
    def size(self) -> int: ...

    def open(self) -> pa.NativeFile:
        """Open the file's bytes as stored. The stream is seekable."""
        ...

    def below(self, folder: str) -> SourceFile:
        """The same file with ``folder`` as the first part of its path."""
        ...


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine."""

    path: str
    local: Path

    @property
    def where(self) -> str:
        return str(self.local)

    @property
    def size(self) -> int:
        return self.local.stat().st_size

    def open(self) -> pa.NativeFile:
        """Open the file's bytes as stored. The stream is seekable.

        The stream is not a ``pyarrow.OSFile``. A reader of pyarrow reads ahead in another thread. If the file is closed
        meanwhile, that thread may read from the next file that is opened: it gets the same file descriptor, and loses
        its beginning (pyarrow 26.0.1). Python waits for such a read before it closes a file.
        """
        import pyarrow as pa

        try:
            return pa.PythonFile(self.local.open("rb"), mode="r")
        except OSError as error:
            raise DatasetError(f"{self.local} cannot be read: {error.strerror or error}") from error

    def below(self, folder: str) -> SourceFile:
        return replace(self, path=f"{folder}/{self.path}")


@dataclass(frozen=True)
class ObjectFile:
    """One generation of an object. It is read in parts, and only the requested parts are downloaded."""

    path: str
    stat: ObjectStat
    storage: Storage

    @property
    def where(self) -> str:
        return self.stat.uri

    @property
    def size(self) -> int:
        return self.stat.size

    def open(self) -> pa.NativeFile:
        import pyarrow as pa

        return pa.PythonFile(io.BufferedReader(ObjectReader(self.storage, self.stat), 64 << 10), mode="r")

    def below(self, folder: str) -> SourceFile:
        return replace(self, path=f"{folder}/{self.path}")


class ObjectReader(io.RawIOBase):
    """A stream of the stored bytes of one generation of an object, read in ranges.

    If the object is read from beginning to end, its checksum is verified.

    :raises DatasetError: the object is gone, was replaced, or differs from its checksum.
    """

    def __init__(self, storage: Storage, stat: ObjectStat) -> None:
        import google_crc32c

        self._storage, self._stat = storage, stat
        self._at = 0
        self._chunk, self._chunk_at = b"", 0
        self._crc: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
        self._checked = 0  # bytes from the beginning that the checksum includes so far
        self._next = 64 << 10  # the size of the next request: small after a seek, larger for sequential reads

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:  # prose: ok
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._stat.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._stat.size - self._at)
        if wanted <= 0:
            return 0
        if not self._chunk_at <= self._at < self._chunk_at + len(self._chunk):
            self._load(wanted)
        begin = self._at - self._chunk_at
        part = self._chunk[begin : begin + wanted]
        view[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _load(self, wanted: int) -> None:
        goes_on = self._at == self._chunk_at + len(self._chunk) and self._at > 0
        self._next = min(2 * self._next, _CHUNK) if goes_on else 64 << 10
        end = min(self._at + max(wanted, self._next), self._stat.size)
        try:
            self._chunk = self._storage.read_range(
                self._stat.uri, self._at, end, generation=self._stat.generation, stored=True
            )
        except (ObjectMissingError, StorageConflictError) as error:
            raise replaced(self._storage, self._stat) from error
        self._chunk_at = self._at
        if len(self._chunk) != end - self._at:
            raise DatasetError(f"{self._stat.uri}: {len(self._chunk)} bytes came, {end - self._at} were asked for")
        if self._chunk_at == self._checked:
            self._crc.update(self._chunk)
            self._checked = end
            if end == self._stat.size:
                self._compare()

    def _compare(self) -> None:
        found = base64.b64encode(self._crc.digest()).decode()
        if self._stat.crc32c is not None and found != self._stat.crc32c:
            raise DatasetError(
                f"{self._stat.uri} has crc32c {found}, {self._stat.crc32c} was expected",
                hint="restore the object, or register a new version",
            )


def replaced(storage: Storage, stat: ObjectStat) -> MlengineError:
    """The error for an object that no longer has the generation that was recorded."""
    there = storage.stat(stat.uri)
    what = "is missing" if there is None else f"was replaced: generation {there.generation}, {stat.generation} recorded"
    return DatasetError(f"{stat.uri} {what}", hint="restore the object, or register a new version")


def uncompressed(file: SourceFile) -> pa.NativeFile:
    """Open the bytes of a file, uncompressed if the file is gzipped."""
    import pyarrow as pa

    stream = file.open()
    packed = stream.read(2) == _GZIP
    stream.seek(0)
    return cast("pa.NativeFile", pa.CompressedInputStream(stream, "gzip") if packed else stream)
