"""The champion of a model: a pointer that is updated atomically, and the history behind it.

``<model>/champion.json`` is the pointer. It is a full entry, so a reader needs only this object, and sees either the
old champion or the new one. The objects ``<model>/champions/<serial>.json`` are the entries. They are created once and
never changed. Each entry contains the serial of the previous entry. The history is the chain of entries from the
pointer backwards. An entry outside the chain never took effect, because its publisher crashed, or because another
publisher updated the pointer first.

A publication, step by step. Each step can be repeated:

1. read the pointer and its object generation; decide whether the job may become champion
2. create the entry with the next free serial
3. replace the pointer if it still has that generation; otherwise start again at step 1

Nothing is copied: the model stays in its job directory, so job directories in the history must not be deleted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from itertools import islice
from typing import Any, Self

from mlengine.core import layout
from mlengine.core.errors import ObjectMissingError, PublishError, StorageConflictError
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

FORMAT = 1
_MAX_GAP = 1000  # consecutive serials of entries that never took effect


class Action(StrEnum):
    """How a model became champion."""

    PUBLISHED = "published"
    FORCED = "forced"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class Champion:
    """An entry of the history. The pointer is the newest entry.

    :param serial: increases by at least one per entry. A rollback gets a new serial too.
    :param metric: the main metric of the model's validation; empty if the validation did not run the model.
    :param metric_value: the value of ``metric`` on the held-out rows.
    :param by: the person or DAG run that published.
    :param why: the reason: that of the verdict, or the one that was given for a rollback or a forced publication.
    :param at: the time of publication, in ISO 8601 and UTC.
    :param fingerprint: the fingerprint of the model's objects at publication.
    :param size: the total size of the model's files in bytes.
    :param dataset: ``uri``, ``name``, ``version`` and ``digest`` of the dataset version that the model was trained on.
    :param previous: the serial of the previous entry; ``None`` for the first.
    :param restores: for a rollback, the serial of the entry that it restores.
    :param publisher: the task that published the model, as the fields of :class:`~mlengine.core.job.JobKey`, so that a
        retry recognises its own entry. It is empty if a person published the model from a terminal or on the page.
    """

    model: str
    serial: int
    action: Action
    job_id: str
    job_dir: str
    model_uri: str
    verdict: str
    metric: str
    metric_value: float | None
    by: str
    why: str
    at: str
    fingerprint: str = ""
    size: int = 0
    dataset: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    previous: int | None = None
    restores: int | None = None
    publisher: Mapping[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> int:
        """The serial with which this model was first published."""
        return self.serial if self.restores is None else self.restores

    @property
    def version(self) -> str:
        return str(self.dataset.get("version") or "")

    def brief(self) -> dict[str, Any]:
        """The fields of the entry that reports and XComs contain."""
        return {
            "serial": self.serial,
            "job_id": self.job_id,
            "job_dir": self.job_dir,
            "model_uri": self.model_uri,
            "fingerprint": self.fingerprint,
            "metric": self.metric,
            "metric_value": self.metric_value,
            "dataset_version": self.version,
        }

    def to_bytes(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "champion.json") -> Self:
        """Read an entry from its JSON.

        :param where: the object's URI, for error messages.
        :raises PublishError: the object is not an entry.
        """
        try:
            raw = json.loads(data)
            if "metric" not in raw:  # an entry of version 0.1
                raw |= {"metric": "" if raw["accuracy"] is None else "accuracy", "metric_value": raw["accuracy"]}
            known = {item.name: raw[item.name] for item in fields(cls) if item.name in raw}
            champion = cls(**{**known, "action": Action(raw["action"])})
        except (ValueError, KeyError, TypeError) as error:
            raise PublishError(
                f"{where} is not a valid champion entry: {error!r}", hint="restore the object"
            ) from error
        if raw.get("format") != FORMAT:
            raise PublishError(f"{where} has format {raw.get('format')!r}, not {FORMAT}", hint="update mlengine")
        return champion


def current(storage: Storage, bucket: str, model: str) -> Champion | None:
    """The model's champion; ``None`` if there is none yet."""
    return pointer(storage, bucket, model)[0]


def entry(storage: Storage, bucket: str, model: str, serial: int) -> Champion:
    """Read one entry of a model's history.

    :raises PublishError: there is no entry with that serial.
    """
    uri = layout.champion_entry(bucket, model, serial)
    try:
        return Champion.from_bytes(storage.read(uri), uri)
    except ObjectMissingError as error:
        raise no_entry(model, serial) from error


def no_entry(model: str, serial: int) -> PublishError:
    """The error for a serial that no champion of the model has."""
    return PublishError(
        f"model {model} has no champion with serial {serial}", hint=f"see mlengine models history {model}"
    )


def history(storage: Storage, bucket: str, model: str, limit: int = 1000) -> list[Champion]:
    """The champions, newest first. Entries that never took effect are not included."""
    return list(islice(chain(storage, bucket, current(storage, bucket, model)), limit))


def chain(
    storage: Storage,
    bucket: str,
    at: Champion | None,
    read: Callable[[Storage, str, str, int], Champion] = entry,
) -> Iterator[Champion]:
    """Iterate over an entry and all entries before it. Entries are read lazily.

    :param at: the entry to start with; ``None`` for an empty history.
    :param read: a function that reads one entry.
    :raises PublishError: the previous entry is missing, or has a higher serial.
    """
    while at is not None:
        yield at
        if at.previous is not None and at.previous >= at.serial:
            raise PublishError(
                f"entry {at.serial} of {at.model} names entry {at.previous}, which is not earlier, as its predecessor"
            )
        at = None if at.previous is None else read(storage, bucket, at.model, at.previous)


def models(storage: Storage, bucket: str) -> list[str]:
    """The names of the models that have a champion."""
    root = layout.bucket_uri(bucket)
    names = [name for name in storage.list_dirs(root) if name not in layout.RESERVED_NAMES and layout.NAME.match(name)]
    return [name for name in names if storage.exists(layout.champion(root, name))]


def swap(storage: Storage, bucket: str, new: Champion, champion: Champion | None, generation: int) -> Champion | None:
    """Steps 2 and 3: make ``new`` the champion if the pointer still has ``generation``.

    :returns: the entry; ``None`` if another process changed the pointer first.
    """
    previous = None if champion is None else champion.serial
    new = _create(storage, bucket, replace(new, previous=previous))
    uri = layout.champion(bucket, new.model)
    try:
        if champion is None:
            storage.create(uri, new.to_bytes())
        else:
            storage.replace(uri, new.to_bytes(), generation)
    except StorageConflictError:
        log.info(
            "model %s: entry %d did not take effect: another process changed the champion first", new.model, new.serial
        )
        return None
    return new


def _create(storage: Storage, bucket: str, new: Champion) -> Champion:
    """Create the entry with the next free serial. If an equal entry exists from before a crash, it is used instead."""
    start = 1 if new.previous is None else new.previous + 1
    for serial in range(start, start + _MAX_GAP):
        numbered = replace(new, serial=serial)
        uri = layout.champion_entry(bucket, new.model, serial)
        try:
            storage.create(uri, numbered.to_bytes())
        except StorageConflictError:
            found = Champion.from_bytes(storage.read(uri), uri)
            if replace(found, at=new.at, serial=new.serial) == new:
                return found
            continue
        return numbered
    raise PublishError(
        f"no free serial for {new.model}: the {_MAX_GAP} serials from {start} on are in use",
        hint="check the directory champions/ of the model",
    )


def pointer(storage: Storage, bucket: str, model: str) -> tuple[Champion | None, int]:
    """The champion and the object generation of its pointer; ``(None, 0)`` if there is none yet."""
    uri = layout.champion(bucket, model)
    try:
        data, generation = storage.read_with_generation(uri)
    except ObjectMissingError:
        return None, 0
    return Champion.from_bytes(data, uri), generation
