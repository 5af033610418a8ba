"""The manifest of a dataset version, which is also the version's record in the bucket."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from mlengine.core.dataset import format1
from mlengine.core.dataset.checks import CheckException, CheckResult
from mlengine.core.dataset.fields import MANIFEST_HINT, Fields
from mlengine.core.dataset.files import DataFile, Split
from mlengine.core.dataset.names import check_dataset_name, check_version_name
from mlengine.core.dataset.schema import Schema
from mlengine.core.errors import DatasetError

FORMAT = 2
FILE_FORMATS = ("parquet", "csv", "jsonl", "tfrecord", "idx", "images", "files")
TASKS = ("binary", "multiclass", "regression", "none")
HELDOUT_POLICIES = ("fixed", "rolling")


@dataclass(frozen=True)
class Manifest:
    """The manifest: what a dataset version contains.

    :param created: the time of registration, in ISO 8601 with its time zone.
    :param format: the format of the files, one of :data:`FILE_FORMATS`.
    :param splits: the splits by name; ``train`` always exists.
    :param task: the kind of prediction that models of this data make, one of :data:`TASKS`.
    :param heldout_policy: ``fixed`` if all versions have the same held-out rows; ``rolling`` if each version has its
        own.
    :param heldout_share: the share of the rows that was held out by their hash; ``None`` if the data came with held-out
        rows.
    :param checks: all checks that were run at registration; not part of the content or its digest.
    :param exceptions: failed checks that were accepted; not part of the content either.
    :param root: the common prefix of all files, if they were recorded by reference.
    """

    name: str
    version: str
    created: str
    license: str
    source: str
    format: str
    schema: Schema
    splits: Mapping[str, Split]
    task: str = "none"
    heldout_policy: str = "fixed"
    heldout_share: float | None = None
    checks: tuple[CheckResult, ...] = ()
    exceptions: tuple[CheckException, ...] = ()
    root: str | None = None

    @property
    def train(self) -> Split:
        return self.splits["train"]

    @property
    def heldout(self) -> Split:
        """The split of the held-out rows.

        :raises DatasetError: the version has no held-out rows.
        """
        if "heldout" not in self.splits:
            raise DatasetError(
                f"{self.name}/{self.version} has no split 'heldout'; splits: {', '.join(self.splits)}",
                hint="register a version with held-out rows: mlengine datasets add … --heldout PATH",
            )
        return self.splits["heldout"]

    @property
    def files(self) -> tuple[DataFile, ...]:
        return tuple(file for split in self.splits.values() for file in split.files)

    @property
    def by_reference(self) -> bool:
        """Whether the files are objects outside the version's folder."""
        return any(file.uri for file in self.files)

    @property
    def digest(self) -> str:
        """The identity of the content, 64 hex digits: equal digests mean equal data.

        The digest does not depend on name, version, time, licence, statistics, or the compression of IDX files.
        """
        if self.format == "idx" and set(self.splits) == {"train", "heldout"} and self.schema.classes is not None:
            # Computed as for manifests of format 1, so that models trained on such versions are still found.
            image = self.schema.column("image")
            content: list[Any] = [self.format, image.dtype, list(image.shape), len(self.schema.classes)]
            content += [self.train.identity, self.heldout.identity]
        else:
            splits = {name: split.identity for name, split in self.splits.items()}
            content = [self.format, self.task, self.schema.to_json(), splits]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "created": self.created,
            "file_format": self.format,
            "license": self.license,
            "source": self.source,
            "task": self.task,
            "heldout": self.heldout_policy,
            "schema": self.schema.to_json(),
            "splits": {name: split.to_json() for name, split in self.splits.items()},
        }
        if self.heldout_share is not None:
            data["heldout_share"] = self.heldout_share
        if self.root is not None:
            data["root"] = self.root
        if self.checks:
            data["checks"] = [item.to_json() for item in self.checks]
        if self.exceptions:
            data["exceptions"] = [item.to_json() for item in self.exceptions]
        return data

    @classmethod
    def from_json(cls, data: Any, where: str = "manifest.json") -> Self:
        """Read a manifest of format 1 or 2.

        Unknown fields are ignored, because a later version of mlengine may add some.

        :param where: the manifest's name in error messages.
        :raises DatasetError: a field is missing or wrong; the error names it.
        """
        fields = Fields(data, where)
        stored = fields.value("format")
        if stored not in (1, FORMAT):
            raise fields.wrong("format", f"{stored!r} is not 1 or {FORMAT}; update mlengine?")
        file_format = fields.choice("file_format", format1.FILE_FORMATS if stored == 1 else FILE_FORMATS)
        if stored == 1:
            task, policy, (schema, splits) = "multiclass", "fixed", format1.content(fields)
        else:
            task, policy = fields.choice("task", TASKS), fields.choice("heldout", HELDOUT_POLICIES)
            schema, splits = Schema.from_json(fields.value("schema"), f"{where}: schema"), _splits(fields)
        manifest = cls(
            name=check_dataset_name(fields.text("name")),
            version=check_version_name(fields.text("version")),
            created=_created(fields),
            license=fields.text("license"),
            source=fields.text("source"),
            format=file_format,
            schema=schema,
            splits=splits,
            task=task,
            heldout_policy=policy,
            heldout_share=fields.optional("heldout_share", fields.number),
            checks=tuple(
                CheckResult.from_json(item, f"{where}: checks[{index}]")
                for index, item in enumerate(fields.optional("checks", fields.items) or [])
            ),
            exceptions=tuple(
                CheckException.from_json(item, f"{where}: exceptions[{index}]")
                for index, item in enumerate(fields.optional("exceptions", fields.items) or [])
            ),
            root=fields.optional("root", fields.text),
        )
        if len({file.path for file in manifest.files}) != len(manifest.files):
            raise fields.wrong("splits", "two files have the same path")
        return manifest

    def to_bytes(self) -> bytes:
        return json.dumps(self.to_json(), indent=2).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "manifest.json") -> Self:
        """Read a manifest from the content of its file.

        :raises DatasetError: the content is not JSON, or not a valid manifest (:meth:`from_json`).
        """
        try:
            raw = json.loads(data)
        except ValueError as error:
            raise DatasetError(f"{where} is not JSON: {error}", hint=MANIFEST_HINT) from error
        return cls.from_json(raw, where)


def _created(fields: Fields) -> str:
    created = fields.text("created")
    try:
        datetime.fromisoformat(created)
    except ValueError as error:
        raise fields.wrong("created", f"{created!r} is not an ISO 8601 time") from error
    return created


def _splits(fields: Fields) -> dict[str, Split]:
    splits = Fields(fields.value("splits"), f"{fields.where}: splits")
    if "train" not in splits.data:
        raise splits.wrong("train", "is missing")
    return {name: Split.from_json(value, f"{fields.where}: splits.{name}") for name, value in splits.data.items()}
