"""The champion of a model: one pointer, swapped whole, and the history that leads to it.

``<model>/champion.json`` is the pointer: a full entry, so that a reader needs this one object and sees the old champion
or the new one, never half. ``<model>/champions/<serial>.json`` are the entries: created once, never changed. Each
names the entry before it, and the chain from the pointer backwards *is* the history; an entry off the chain never
took effect (its publisher crashed or lost a race before the swap).

A publication, step by step; each may be entered twice:

1. read the pointer and its generation; decide whether the job may follow
2. create the entry with the next free serial
3. swap the pointer, if it still has that generation; else begin again at 1

Nothing is copied: the model stays in its job dir. So whoever removes job dirs must leave those the history names.
Does not judge models (:mod:`mlengine.validation`), nor decide who becomes champion (:mod:`mlengine.promotion`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from itertools import islice
from typing import Any, Self

from mlengine.core import layout
from mlengine.core.errors import ObjectMissingError, PublishError, StorageConflictError
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

FORMAT = 1
_GAPS = 1000  # serials taken by publishers that never swapped


class Action(StrEnum):
    """What made an entry."""

    PUBLISHED = "published"
    FORCED = "forced"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class Champion:
    """An entry of the history; the pointer holds the newest.

    :param serial: counts up; a champion that comes back by a rollback gets a new one.
    :param fingerprint: of the model's objects when it was published.
    :param dataset: ``uri``, ``name``, ``version``, ``digest`` of what it was trained on.
    :param by: who; ``why``: for a rollback and a forced publication the reason that was given.
    :param previous: the serial of the entry before; ``None`` for the first.
    :param restores: for a rollback, the serial of the entry that this one repeats.
    :param publisher: the task that published it, as a :class:`~mlengine.core.job.JobKey` has it. By it a retry knows
        its own entry. Empty for whatever a person did at a terminal or on the page.
    """

    model: str
    serial: int
    action: Action
    job_id: str
    job_dir: str
    model_uri: str
    verdict: str
    accuracy: float | None
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
        """The serial under which this model was published first."""
        return self.serial if self.restores is None else self.restores

    @property
    def version(self) -> str:
        return str(self.dataset.get("version") or "")

    def brief(self) -> dict[str, Any]:
        """What a report and an XCom say of it."""
        return {
            "serial": self.serial,
            "job_id": self.job_id,
            "job_dir": self.job_dir,
            "model_uri": self.model_uri,
            "accuracy": self.accuracy,
            "dataset_version": self.version,
        }

    def to_bytes(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "champion.json") -> Self:
        """:raises PublishError: the object is not an entry."""
        try:
            raw = json.loads(data)
            known = {item.name: raw[item.name] for item in fields(cls) if item.name in raw}
            made = cls(**{**known, "action": Action(raw["action"])})
        except (ValueError, KeyError, TypeError) as error:
            raise PublishError(f"{where} is not a champion: {error!r}", hint="restore the object") from error
        if raw.get("format") != FORMAT:
            raise PublishError(f"{where} has format {raw.get('format')!r}, not {FORMAT}", hint="update mlengine")
        return made


def current(storage: Storage, bucket: str, model: str) -> Champion | None:
    """The champion; ``None`` if there is none yet."""
    return pointer(storage, bucket, model)[0]


def entry(storage: Storage, bucket: str, model: str, serial: int) -> Champion:
    """One entry of the history. :raises PublishError: there is none of that serial."""
    uri = layout.champion_entry(bucket, model, serial)
    try:
        return Champion.from_bytes(storage.read(uri), uri)
    except ObjectMissingError as error:
        raise PublishError(
            f"model {model} has no champion with serial {serial}", hint=f"see mlengine models history {model}"
        ) from error


def history(storage: Storage, bucket: str, model: str, limit: int = 1000) -> list[Champion]:
    """Who was champion, the newest first: the chain from the pointer, not every entry there is."""
    return list(islice(chain(storage, bucket, current(storage, bucket, model)), limit))


def chain(storage: Storage, bucket: str, at: Champion | None) -> Iterator[Champion]:
    """An entry and those before it; each is read when it is asked for.

    :raises PublishError: an entry names a later one, or one that is not there, as the one before it.
    """
    while at is not None:
        yield at
        if at.previous is not None and at.previous >= at.serial:
            raise PublishError(f"entry {at.serial} of {at.model} names {at.previous} as the one before it")
        at = None if at.previous is None else entry(storage, bucket, at.model, at.previous)


def models(storage: Storage, bucket: str) -> list[str]:
    """The models that have a champion."""
    root = layout.bucket_uri(bucket)
    names = [name for name in storage.list_dirs(root) if name not in layout.RESERVED_NAMES and layout.NAME.match(name)]
    return [name for name in names if storage.exists(layout.champion(root, name))]


def swap(storage: Storage, bucket: str, made: Champion, champion: Champion | None, generation: int) -> Champion | None:
    """Make ``made`` the champion, if the pointer still has ``generation``.

    Steps 2 and 3. ``None``: another process swapped first, and nothing took effect.
    """
    previous = None if champion is None else champion.serial
    made = _create(storage, bucket, replace(made, previous=previous))
    uri = layout.champion(bucket, made.model)
    try:
        if champion is None:
            storage.create(uri, made.to_bytes())
        else:
            storage.replace(uri, made.to_bytes(), generation)
    except StorageConflictError:
        log.info("model %s: entry %d lost the race for the pointer", made.model, made.serial)
        return None
    return made


def _create(storage: Storage, bucket: str, made: Champion) -> Champion:
    """The entry under the first free serial after the champion's; one that a crash of ours left there is taken up."""
    start = 1 if made.previous is None else made.previous + 1
    for serial in range(start, start + _GAPS):
        numbered = replace(made, serial=serial)
        uri = layout.champion_entry(bucket, made.model, serial)
        try:
            storage.create(uri, numbered.to_bytes())
        except StorageConflictError:
            found = Champion.from_bytes(storage.read(uri), uri)
            if replace(found, at=made.at, serial=made.serial) == made:
                return found
            continue
        return numbered
    raise PublishError(f"{_GAPS} serials after {start} of {made.model} are taken", hint="look at the champions folder")


def pointer(storage: Storage, bucket: str, model: str) -> tuple[Champion | None, int]:
    """The champion and the generation of its pointer; ``(None, 0)`` if there is none yet."""
    uri = layout.champion(bucket, model)
    try:
        data, generation = storage.read_with_generation(uri)
    except ObjectMissingError:
        return None, 0
    return Champion.from_bytes(data, uri), generation
