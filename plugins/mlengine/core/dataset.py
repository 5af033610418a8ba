"""A dataset version: its manifest, its identity, and how it differs from another version.

A version is immutable, and exists once its manifest does. Its identity is the uncompressed content of its files, so
that it does not depend on the compressor or on the time of registration.

This module does no I/O; :mod:`mlengine.datasets` does.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from mlengine.core.errors import DatasetError

FORMAT = 1
FILE_FORMATS = frozenset({"idx"})
SPLITS = ("train", "heldout")

_NAME = re.compile(r"^[a-z][a-z0-9_-]{0,39}$")
_VERSION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_MANIFEST_HINT = "register the version again: mlengine datasets add"


def check_dataset_name(name: str) -> str:
    """Return ``name`` if it is valid.

    :raises DatasetError: it cannot be the name of a folder in the bucket.
    """
    if not _NAME.fullmatch(name):
        raise DatasetError(f"invalid dataset name: {name!r}", hint="use 1 to 40 of a-z 0-9 _ -, starting with a letter")
    return name


def check_version_name(version: str) -> str:
    """Return ``version`` if it is valid.

    :raises DatasetError: it cannot be the name of a folder in the bucket and a part of a job id.
    """
    if not _VERSION.fullmatch(version):
        raise DatasetError(
            f"invalid dataset version: {version!r}",
            hint="use 1 to 63 of A-Z a-z 0-9 . _ + -, starting with a letter or digit: 2026-11-01, v12",
        )
    return version


@dataclass(frozen=True)
class DataFile:
    """One file of a version.

    :param path: relative to the version's folder.
    :param size: in bytes, as stored.
    :param sha256: of the file as stored.
    :param content_sha256: of the uncompressed file: the file's identity. ``None`` if it is not known.
    """

    path: str
    size: int
    sha256: str
    content_sha256: str | None = None

    @property
    def identity(self) -> str:
        return self.content_sha256 or self.sha256

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"path": self.path, "size": self.size, "sha256": self.sha256}
        if self.content_sha256 is not None:
            data["content_sha256"] = self.content_sha256
        return data

    @classmethod
    def from_json(cls, data: Any, where: str) -> Self:
        fields = _Fields(data, where)
        path = fields.text("path")
        if path.startswith("/") or "\\" in path or any(part in {"", ".", ".."} for part in path.split("/")):
            raise fields.wrong("path", f"{path!r} is outside of the version's folder")
        content = None if fields.absent("content_sha256") else fields.sha256("content_sha256")
        return cls(path, fields.count("size"), fields.sha256("sha256"), content)


@dataclass(frozen=True)
class Split:
    """The training rows, or the held-out rows.

    :param label_counts: how many rows have label 0, 1, …; empty if they were not counted.
    """

    rows: int
    images: DataFile
    labels: DataFile
    label_counts: tuple[int, ...] = ()

    @property
    def identity(self) -> str:
        return f"{self.rows}:{self.images.identity}:{self.labels.identity}"

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "rows": self.rows,
            "images": self.images.to_json(),
            "labels": self.labels.to_json(),
        }
        if self.label_counts:
            data["label_counts"] = list(self.label_counts)
        return data

    @classmethod
    def from_json(cls, data: Any, where: str, classes: int) -> Self:
        fields = _Fields(data, where)
        rows = fields.count("rows", at_least=1)
        counts = () if fields.absent("label_counts") else fields.counts("label_counts")
        if counts and (len(counts) != classes or sum(counts) != rows):
            raise fields.wrong(
                "label_counts",
                f"{len(counts)} numbers with sum {sum(counts)}; expected {classes} numbers with sum {rows}",
            )
        return cls(
            rows=rows,
            images=DataFile.from_json(fields.value("images"), f"{where}.images"),
            labels=DataFile.from_json(fields.value("labels"), f"{where}.labels"),
            label_counts=counts,
        )


@dataclass(frozen=True)
class CheckException:
    """A check that failed, and that the person who registered the version has waived.

    :param found: the check's message.
    :param reason: why the failure is acceptable.
    """

    check: str
    found: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"check": self.check, "found": self.found, "reason": self.reason}

    @classmethod
    def from_json(cls, data: Any, where: str) -> Self:
        fields = _Fields(data, where)
        return cls(fields.text("check"), fields.text("found"), fields.text("reason"))


@dataclass(frozen=True)
class Manifest:
    """The content of a version. ``shape`` and ``dtype`` are those of one image; ``created`` is ISO 8601 with time zone.

    ``exceptions`` do not count for the digest.
    """

    name: str
    version: str
    created: str
    license: str
    source: str
    train: Split
    heldout: Split
    shape: tuple[int, ...]
    classes: int
    dtype: str = "uint8"
    file_format: str = "idx"
    exceptions: tuple[CheckException, ...] = ()

    @property
    def files(self) -> tuple[DataFile, ...]:
        return (self.train.images, self.train.labels, self.heldout.images, self.heldout.labels)

    @property
    def digest(self) -> str:
        """The identity of the content, 64 hex digits. Versions with the same digest have the same data.

        It does not depend on name, version, time, licence, or the compression of the files.
        """
        content = [self.file_format, self.dtype, list(self.shape), self.classes, self.train.identity]
        return hashlib.sha256(json.dumps([*content, self.heldout.identity]).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "created": self.created,
            "file_format": self.file_format,
            "license": self.license,
            "source": self.source,
            "splits": {"train": self.train.to_json(), "heldout": self.heldout.to_json()},
            "shape": list(self.shape),
            "dtype": self.dtype,
            "classes": self.classes,
        }
        if self.exceptions:
            data["exceptions"] = [item.to_json() for item in self.exceptions]
        return data

    @classmethod
    def from_json(cls, data: Any, where: str = "manifest.json") -> Self:
        """Read a manifest. Unknown fields are ignored: later versions of mlengine may add some.

        :param where: the manifest's name in errors.
        :raises DatasetError: a field is missing or invalid; names it.
        """
        fields = _Fields(data, where)
        if fields.value("format") != FORMAT:
            raise fields.wrong(
                "format", f"{fields.value('format')!r} is not {FORMAT}; a later mlengine may have written it"
            )
        if (file_format := fields.text("file_format")) not in FILE_FORMATS:
            raise fields.wrong("file_format", f"{file_format!r} is none of {', '.join(sorted(FILE_FORMATS))}")
        created = fields.text("created")
        try:
            _utc(datetime.fromisoformat(created))
        except ValueError as error:
            raise fields.wrong("created", f"{created!r} is not an ISO 8601 time") from error
        splits = _Fields(fields.value("splits"), f"{where}: splits")
        classes = fields.count("classes", at_least=2)
        train, heldout = (Split.from_json(splits.value(s), f"{where}: splits.{s}", classes) for s in SPLITS)
        manifest = cls(
            name=check_dataset_name(fields.text("name")),
            version=check_version_name(fields.text("version")),
            created=created,
            license=fields.text("license"),
            source=fields.text("source"),
            train=train,
            heldout=heldout,
            shape=fields.counts("shape", at_least=1),
            classes=classes,
            dtype=fields.text("dtype"),
            file_format=file_format,
            exceptions=() if fields.absent("exceptions") else _exceptions(fields),
        )
        if len({file.path for file in manifest.files}) != len(manifest.files):
            raise fields.wrong("splits", "two files have the same path")
        return manifest

    def to_bytes(self) -> bytes:
        return json.dumps(self.to_json(), indent=2).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "manifest.json") -> Self:
        """:raises DatasetError: it is not JSON, or not a manifest."""
        try:
            raw = json.loads(data)
        except ValueError as error:
            raise DatasetError(f"{where} is not JSON: {error}", hint=_MANIFEST_HINT) from error
        return cls.from_json(raw, where)


def _exceptions(fields: _Fields) -> tuple[CheckException, ...]:
    value = fields.value("exceptions")
    if not isinstance(value, list):
        raise fields.wrong("exceptions", f"{value!r} is not a list")
    return tuple(
        CheckException.from_json(item, f"{fields.where}: exceptions[{index}]") for index, item in enumerate(value)
    )


@dataclass(frozen=True)
class Difference:
    """A field in which two versions differ. Both values are strings."""

    field: str
    old: str
    new: str


def diff(old: Manifest, new: Manifest) -> list[Difference]:
    """What changed from ``old`` to ``new``: content, label distribution, licence, source.

    Version, creation time and compression are not compared.
    """
    pairs: list[tuple[str, object, object]] = [
        ("name", old.name, new.name),
        ("license", old.license, new.license),
        ("source", old.source, new.source),
        ("file_format", old.file_format, new.file_format),
        ("shape", "x".join(map(str, old.shape)), "x".join(map(str, new.shape))),
        ("dtype", old.dtype, new.dtype),
        ("classes", old.classes, new.classes),
    ]
    for split, before, after in (("train", old.train, new.train), ("heldout", old.heldout, new.heldout)):
        pairs.append((f"{split}.rows", before.rows, after.rows))
        pairs += [
            (f"{split}.{part}", a.identity[:12], b.identity[:12])
            for part, a, b in (("images", before.images, after.images), ("labels", before.labels, after.labels))
        ]
        if before.label_counts and after.label_counts and old.classes == new.classes:
            counts = zip(before.label_counts, after.label_counts, strict=True)
            pairs += [
                (f"{split}.label {label}", _share(a, before.rows), _share(b, after.rows))
                for label, (a, b) in enumerate(counts)
            ]
    return [Difference(field, str(a), str(b)) for field, a, b in pairs if a != b]


def _share(count: int, rows: int) -> str:
    return f"{count} ({100 * count / rows:.2f} %)"


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


class _Fields:
    """Reads the fields of a JSON object. Each error names the manifest and the field."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise DatasetError(f"{where} is not an object", hint=_MANIFEST_HINT)
        self.data = data
        self.where = where

    def wrong(self, field: str, why: str) -> DatasetError:
        return DatasetError(f"{self.where}: {field}: {why}", hint=_MANIFEST_HINT)

    def absent(self, field: str) -> bool:
        return self.data.get(field) is None

    def value(self, field: str) -> Any:
        if field not in self.data:
            raise self.wrong(field, "is missing")
        return self.data[field]

    def text(self, field: str) -> str:
        value = self.value(field)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, f"{value!r} is not a non-empty string")
        return value

    def sha256(self, field: str) -> str:
        value = self.text(field)
        if not _SHA256.fullmatch(value):
            raise self.wrong(field, f"{value!r} is not 64 hex digits")
        return value

    def count(self, field: str, *, at_least: int = 0) -> int:
        value = self.value(field)
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            raise self.wrong(field, f"{value!r} is not an integer of at least {at_least}")
        return value

    def counts(self, field: str, *, at_least: int = 0) -> tuple[int, ...]:
        value = self.value(field)
        if not isinstance(value, list) or not value:
            raise self.wrong(field, f"{value!r} is not a list of numbers")
        items = _Fields({f"{field}[{index}]": item for index, item in enumerate(value)}, self.where)
        return tuple(items.count(key, at_least=at_least) for key in items.data)
