"""The files of a dataset version, and its splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from mlengine.core.dataset.fields import Fields
from mlengine.core.dataset.statistics import ColumnStatistics


@dataclass(frozen=True)
class DataFile:
    """One file of a version.

    :param path: the path relative to the version's folder, and to a local copy of the version.
    :param size: the size in bytes as stored.
    :param sha256: the checksum of the bytes as stored. A file recorded by reference was not read and has none.
    :param content_sha256: the checksum of the uncompressed bytes, if the file was gzipped at registration.
    :param crc32c: the checksum of the bytes as stored, in base64 as Cloud Storage returns it.
    :param generation: the object's generation, for a file recorded by reference.
    :param rows: the number of rows in this file, if known.
    :param uri: the object's URI, for a file recorded by reference; ``None`` for a file in the version's folder.
    :param column: the column in this file, for formats that keep each column in its own file (IDX).
    """

    path: str
    size: int
    sha256: str | None = None
    content_sha256: str | None = None
    crc32c: str | None = None
    generation: int | None = None
    rows: int | None = None
    uri: str | None = None
    column: str | None = None

    @property
    def identity(self) -> str:
        """An identifier that is equal for files with equal content, as far as their recorded checksums show."""
        return self.content_sha256 or self.sha256 or f"crc32c:{self.crc32c}:{self.size}"

    def to_json(self) -> dict[str, Any]:
        names = ("sha256", "content_sha256", "crc32c", "generation", "rows", "uri", "column")
        optional = {name: getattr(self, name) for name in names}
        data: dict[str, Any] = {"path": self.path, "size": self.size}
        return data | {name: value for name, value in optional.items() if value is not None}

    @classmethod
    def from_json(cls, data: Any, where: str) -> Self:
        fields = Fields(data, where)
        path = fields.text("path")
        if path.startswith("/") or "\\" in path or any(part in {"", ".", ".."} for part in path.split("/")):
            raise fields.wrong("path", f"{path!r} is outside of the version's folder")
        uri = fields.optional("uri", fields.text)
        if uri is not None and not uri.startswith("gs://"):
            raise fields.wrong("uri", f"{uri!r} is not a gs:// URI")
        file = cls(
            path,
            fields.count("size"),
            sha256=fields.optional("sha256", fields.sha256),
            content_sha256=fields.optional("content_sha256", fields.sha256),
            crc32c=fields.optional("crc32c", fields.crc32c),
            generation=fields.optional("generation", fields.count),
            rows=fields.optional("rows", fields.count),
            uri=uri,
            column=fields.optional("column", fields.text),
        )
        if file.sha256 is None and file.crc32c is None:
            raise fields.wrong("sha256", "is missing, and so is crc32c")
        return file


@dataclass(frozen=True)
class Split:
    """One part of a version's rows: those for training, those held out, or another part.

    :param rows: the number of rows; ``None`` if they were not counted.
    :param statistics: the statistics of each column.
    :param read: the number of rows that the statistics cover, if not all.
    """

    rows: int | None
    files: tuple[DataFile, ...]
    statistics: Mapping[str, ColumnStatistics] = field(default_factory=dict)
    read: int | None = None

    @property
    def counted(self) -> int:
        """The number of rows that the statistics cover; 0 if it is not known."""
        return self.read or self.rows or 0

    @property
    def size(self) -> int:
        """The size in bytes as stored."""
        return sum(file.size for file in self.files)

    @property
    def identity(self) -> str:
        """An identifier that is equal for splits with equal content, however their files were compressed."""
        if all(file.column for file in self.files):
            return ":".join([str(self.rows), *(file.identity for file in self.files)])
        content = sorted((file.path, file.identity) for file in self.files)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def same_content(self, other: Split) -> bool:
        """Whether both splits have the same files, by the checksums that both recorded.

        A split that was copied and one that was recorded by reference can therefore be equal.
        """
        if self.identity == other.identity:
            return True
        mine, theirs = ({(file.path, file.size, file.crc32c) for file in split.files} for split in (self, other))
        referenced = any(file.uri for file in (*self.files, *other.files))
        return referenced and mine == theirs and all(checksum is not None for *_, checksum in mine)

    def file_of(self, column: str) -> DataFile:
        """The file that holds ``column``, in a format that keeps each column in its own file.

        :raises KeyError: no file holds it.
        """
        for file in self.files:
            if file.column == column:
                return file
        raise KeyError(column)

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {} if self.rows is None else {"rows": self.rows}
        data["files"] = [file.to_json() for file in self.files]
        if self.statistics:
            data["statistics"] = {name: column.to_json() for name, column in self.statistics.items()}
        if self.read is not None:
            data["read"] = self.read
        return data

    @classmethod
    def from_json(cls, data: Any, where: str) -> Self:
        fields = Fields(data, where)
        files = fields.items("files")
        if not files:
            raise fields.wrong("files", "is empty")
        statistics = Fields(fields.optional("statistics", fields.value) or {}, f"{where}.statistics")
        return cls(
            rows=fields.optional("rows", lambda name: fields.count(name, at_least=1)),
            files=tuple(DataFile.from_json(file, f"{where}.files[{index}]") for index, file in enumerate(files)),
            statistics={
                name: ColumnStatistics.from_json(value, f"{where}.statistics.{name}")
                for name, value in statistics.data.items()
            },
            read=fields.optional("read", lambda name: fields.count(name, at_least=1)),
        )
