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
Does not judge models (:mod:`mlengine.gate`), but never publishes one against a champion it was not compared with.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from mlengine.core import layout
from mlengine.core.errors import ObjectMissingError, PublishError, StorageConflictError
from mlengine.storage import Storage

if TYPE_CHECKING:
    from mlengine.gate.report import Report

log = logging.getLogger(__name__)

FORMAT = 1
_RACES = 20  # swaps lost to others before giving up
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
            raise PublishError(f"{where} is not a champion: {error!r}", remedy="restore the object") from error
        if raw.get("format") != FORMAT:
            raise PublishError(f"{where} has format {raw.get('format')!r}, not {FORMAT}", remedy="update mlengine")
        return made


class Word(StrEnum):
    """What a publication came to; the same word in log, XCom and docs."""

    PUBLISHED = "published"
    ALREADY_CHAMPION = "already_champion"
    SUPERSEDED = "superseded"  # it was champion before; a repeated task does not bring it back
    REJECTED = "rejected"
    OLDER_DATASET = "older_dataset"
    NOT_COMPARED = "not_compared"  # the champion changed since the validation, and the two cannot be compared
    WORSE = "worse"  # … and compared with the new one it does not hold


@dataclass(frozen=True)
class Outcome:
    """What became of a publication, and who is champion now (``None`` only if there is none at all)."""

    word: Word
    sentence: str
    champion: Champion | None

    @property
    def published(self) -> bool:
        """Whether the job that asked is the champion."""
        return self.word in {Word.PUBLISHED, Word.ALREADY_CHAMPION}


@dataclass(frozen=True)
class Force:
    """Publish in spite of everything but a broken model. Both are kept in the history."""

    by: str
    why: str

    def __post_init__(self) -> None:
        if not self.by.strip() or not self.why.strip():
            raise PublishError("force needs a name and a reason", remedy="say who forces it, and why; both are kept")


def current(storage: Storage, bucket: str, model: str) -> Champion | None:
    """The champion; ``None`` if there is none yet."""
    return _pointer(storage, bucket, model)[0]


def entry(storage: Storage, bucket: str, model: str, serial: int) -> Champion:
    """One entry of the history. :raises PublishError: there is none of that serial."""
    uri = layout.champion_entry(bucket, model, serial)
    try:
        return Champion.from_bytes(storage.read(uri), uri)
    except ObjectMissingError as error:
        raise PublishError(
            f"model {model} has no champion with serial {serial}", remedy=f"see mlengine models show {model}"
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


def publish(
    storage: Storage, bucket: str, report: Report, *, by: str, why: str = "", force: Force | None = None
) -> Outcome:
    """Make the validated model the champion, unless something speaks against it.

    Idempotent: the same job published again is ``already_champion``, and one that was champion before stays
    ``superseded``, so that a task that is run again does not undo a rollback.

    :param by: who or what publishes: a person, or a DAG run.
    :param force: publish though rejected, trained on an older dataset version, not compared, or superseded.
    :raises PublishError: the model's files are not those that were validated; or others swap all the time.
    """
    from mlengine.champion_rules import objection, unchanged

    unchanged(storage, report)
    for _ in range(_RACES):
        champion, generation = _pointer(storage, bucket, report.model)
        if champion and champion.job_dir == report.job_dir and champion.fingerprint == report.fingerprint:
            return _told(Outcome(Word.ALREADY_CHAMPION, f"{report.job_id} is the champion already.", champion))
        against = objection(storage, bucket, report, champion)
        if against is not None and force is None:
            return _told(against)
        made = _entry_for(report, champion, by, why, force if against is not None else None)
        swapped = _swap(storage, bucket, made, champion, generation)
        if swapped is not None:
            return _told(Outcome(Word.PUBLISHED, _announce(swapped), swapped))
    raise PublishError(
        f"{_RACES} other publications of {report.model} came first", remedy="find out who publishes, then try again"
    )


def rollback(storage: Storage, bucket: str, model: str, *, by: str, why: str, to: int | None = None) -> Champion:
    """Make the champion before this one the champion again; or that of serial ``to``.

    Twice in a row goes back twice. The history grows by an entry; nothing is removed from it.

    :raises PublishError: there is nothing to go back to, its files are gone or changed, or no reason was given.
    """
    from mlengine.champion_rules import intact

    force = Force(by, why)
    for _ in range(_RACES):
        champion, generation = _pointer(storage, bucket, model)
        if champion is None:
            raise PublishError(f"model {model} has no champion", remedy="publish one first")
        target = _before(storage, bucket, model, champion) if to is None else entry(storage, bucket, model, to)
        if target.origin == champion.origin:
            raise PublishError(f"{target.job_id} is the champion of {model} already", remedy="choose another serial")
        intact(storage, target)
        made = replace(target, action=Action.ROLLED_BACK, by=force.by, why=force.why, at=_now(), restores=target.origin)
        swapped = _swap(storage, bucket, made, champion, generation)
        if swapped is not None:
            log.info("model %s: %s", model, _announce(swapped))
            return swapped
    raise PublishError(f"{_RACES} other publications of {model} came first", remedy="try again")


def _before(storage: Storage, bucket: str, model: str, champion: Champion) -> Champion:
    """Whom the champion replaced when it was first published."""
    first = champion if champion.restores is None else entry(storage, bucket, model, champion.restores)
    if first.previous is None:
        raise PublishError(
            f"{first.job_id} is the first champion of {model}: there is none before it",
            remedy=f"see mlengine models show {model}; name another with --to SERIAL",
        )
    return entry(storage, bucket, model, first.previous)


def _entry_for(report: Report, champion: Champion | None, by: str, why: str, force: Force | None) -> Champion:
    return Champion(
        model=report.model,
        serial=0 if champion is None else champion.serial,
        action=Action.PUBLISHED if force is None else Action.FORCED,
        job_id=report.job_id,
        job_dir=report.job_dir,
        model_uri=report.model_uri,
        verdict=report.verdict.decision.value,
        accuracy=report.accuracy,
        by=by if force is None else force.by,
        why=(why or " ".join(report.verdict.reasons)) if force is None else force.why,
        at=_now(),
        fingerprint=report.fingerprint,
        size=report.size,
        dataset={name: report.dataset[name] for name in _DATASET if name in report.dataset},
        lineage={**report.lineage, "digest": report.digest, "environment": dict(report.environment)},
    )


_DATASET = ("uri", "name", "version", "digest")


def _swap(storage: Storage, bucket: str, made: Champion, champion: Champion | None, generation: int) -> Champion | None:
    """Steps 2 and 3. ``None``: somebody else swapped first, and nothing took effect."""
    previous = None if champion is None else champion.serial
    made = _create(storage, bucket, replace(made, previous=previous))
    pointer = layout.champion(bucket, made.model)
    try:
        if champion is None:
            storage.create(pointer, made.to_bytes())
        else:
            storage.replace(pointer, made.to_bytes(), generation)
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
    raise PublishError(
        f"{_GAPS} serials after {start} of {made.model} are taken", remedy="look at the champions folder"
    )


def _pointer(storage: Storage, bucket: str, model: str) -> tuple[Champion | None, int]:
    uri = layout.champion(bucket, model)
    try:
        data, generation = storage.read_with_generation(uri)
    except ObjectMissingError:
        return None, 0
    return Champion.from_bytes(data, uri), generation


def _announce(champion: Champion) -> str:
    accuracy = "" if champion.accuracy is None else f" with accuracy {champion.accuracy:.4f}"
    verb = {Action.PUBLISHED: "is", Action.FORCED: "was forced to be", Action.ROLLED_BACK: "is again"}[champion.action]
    return f"{champion.job_id} {verb} the champion of {champion.model}{accuracy}, serial {champion.serial}."


def _told(outcome: Outcome) -> Outcome:
    log.info("publication %s: %s", outcome.word.value, outcome.sentence)
    return outcome


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
