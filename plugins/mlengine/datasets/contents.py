"""Computes the checksums of the files of a version that is being registered, and uploads the files."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlengine.core import layout
from mlengine.core.dataset import DataFile
from mlengine.core.errors import DatasetError, StorageConflictError
from mlengine.core.plural import number_of
from mlengine.datasets.discovery import Found
from mlengine.datasets.download import sha256_of
from mlengine.datasets.formats import idx
from mlengine.datasets.scan import Progress
from mlengine.datasets.sources import LocalFile, ObjectFile, SourceFile
from mlengine.datasets.split_names import split_of_folder
from mlengine.storage.client import Storage, crc32c_of

_CHUNK = 1 << 20
_LEVEL = 6  # gzip: 10 % smaller than level 1 on digits, in twice the time, which is spent only once
_THREADS = 4


class Contents:
    """The files of all splits, and the subset that is uploaded.

    IDX files are compressed, always into the same bytes. Other files are stored as they are. Objects that are recorded
    by reference are not copied.

    :param scratch: an empty folder for compressed files.
    """

    def __init__(self, found: Found, scratch: Path) -> None:
        self._found = found
        self._scratch = scratch
        self._local: dict[str, Path] = {}
        self.splits: dict[str, tuple[DataFile, ...]] = {}

    def read(self, row_counts: dict[str, list[int] | None], progress: Progress) -> None:
        """Compute the checksums of all files, and compress those that are stored compressed."""
        for split, files in self._found.splits.items():
            counts: list[int] | list[None] = row_counts.get(split) or [None] * len(files)
            with ThreadPoolExecutor(_THREADS) as pool:
                read = list(
                    pool.map(lambda pair, split=split: self._file(split, *pair), zip(files, counts, strict=True))
                )
            if self._found.format.name == "idx":
                read.sort(key=lambda file: str(file.column))
            self.splits[split] = tuple(read)
            progress(f"{split}: {number_of(len(read), 'file')} read")

    def _file(self, split: str, file: SourceFile, rows: int | None) -> DataFile:
        column = idx.column_of_file(file.path) if self._found.format.name == "idx" else None
        if isinstance(file, ObjectFile):
            stat = file.stat
            if stat.crc32c is None:
                raise DatasetError(f"{stat.uri} has no crc32c, so that it cannot be recorded by reference")
            return DataFile(
                stored_path(split, file.path),
                stat.size,
                crc32c=stat.crc32c,
                generation=stat.generation,
                rows=rows,
                uri=stat.uri,
                column=column,
            )
        if not isinstance(file, LocalFile):
            raise TypeError(type(file).__name__)
        if column is not None:
            return self._compressed(split, file, column, rows)
        path = stored_path(split, file.path)
        if path in self._local:
            raise DatasetError(f"{file.where} and {self._local[path]} would both be stored as {path}")
        self._local[path] = file.local
        size, sha256, crc32c = _checksums(file.local)
        return DataFile(path, size, sha256=sha256, crc32c=crc32c, rows=rows)

    def _compressed(self, split: str, file: LocalFile, column: str, rows: int | None) -> DataFile:
        dimensions = "idx3" if column == "image" else "idx1"
        packed = self._scratch / f"{split}-{column}s-{dimensions}-ubyte.gz"
        content = hashlib.sha256()
        with (
            idx.opened(file) as stream,
            packed.open("wb") as raw,
            gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as sink,
        ):
            while chunk := stream.read(_CHUNK):
                content.update(chunk)
                sink.write(chunk)
        self._local[packed.name] = packed
        return DataFile(
            packed.name,
            packed.stat().st_size,
            sha256=sha256_of(packed),
            content_sha256=content.hexdigest(),
            crc32c=crc32c_of(packed),
            rows=rows,
            column=column,
        )

    def upload(self, storage: Storage, root: str, progress: Progress) -> None:
        """Create the objects in the version's folder. Objects that exist with the same content are not uploaded again.

        :raises DatasetError: there are objects with other content, or a file changed after its checksum was computed.
        """
        files = [file for files in self.splits.values() for file in files if file.uri is None]
        done: list[str] = []

        def one(file: DataFile) -> None:
            local = self._local[file.path]
            if local.stat().st_size != file.size:
                raise DatasetError(f"{local} changed while it was read", hint="add it again when it is complete")
            storage.upload_once(local, layout.join(root, file.path))
            done.append(file.path)
            progress(f"uploaded {len(done):,} of {number_of(len(files), 'file')}")

        try:
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(one, files))
            self._verify(storage, root, files)
        except StorageConflictError as error:
            raise DatasetError(
                f"{root} holds files of other data and no manifest: another registration is under way, or died",
                hint="if none is running, discard what it left: mlengine datasets add --discard-partial",
            ) from error

    def _verify(self, storage: Storage, root: str, files: Sequence[DataFile]) -> None:
        """Verify all objects after the upload, because not every server enforces "create only" in an upload session."""
        if not files:
            return
        there = {stat.uri: stat for stat in storage.ls(f"{root}/")}
        for file in files:
            stat = there.get(layout.join(root, file.path))
            if stat is None or (stat.size, stat.crc32c or file.crc32c) != (file.size, file.crc32c):
                what = "changed while it was read" if self._changed(file) else "was written by another registration"
                raise StorageConflictError(f"{layout.join(root, file.path)} {what}")

    def _changed(self, file: DataFile) -> bool:
        return crc32c_of(self._local[file.path]) != file.crc32c


def stored_path(split: str, path: str) -> str:
    """The path of a split's file in the manifest, in a folder with the split's name."""
    folders = path.split("/")
    kept = folders[1:] if len(folders) > 1 and split_of_folder(folders[0]) else folders
    return "/".join([split, *kept])


def _checksums(path: Path) -> tuple[int, str, str]:
    """The size, SHA-256 and CRC32C of a file, in one pass."""
    import google_crc32c

    sha256, crc, size = hashlib.sha256(), _crc(google_crc32c), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            sha256.update(chunk)
            crc.update(chunk)
            size += len(chunk)
    return size, sha256.hexdigest(), base64.b64encode(crc.digest()).decode()


def _crc(library: Any) -> Any:
    return library.Checksum()
