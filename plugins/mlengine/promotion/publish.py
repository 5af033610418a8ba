"""Publish a validated model, force one, or roll back: each is one swap of the champion's pointer.

Never publishes a model against a champion that it was not compared with, unless forced
(:mod:`mlengine.promotion.rules`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from mlengine.champions.history import Action, Champion, entry, pointer, swap
from mlengine.core.errors import PublishError
from mlengine.promotion.outcome import Force, Outcome, Word
from mlengine.promotion.rules import intact, objection, unchanged
from mlengine.storage.client import Storage
from mlengine.validation.report import Report

log = logging.getLogger(__name__)

_RACES = 20  # swaps lost to others before giving up


def publish(
    storage: Storage,
    bucket: str,
    report: Report,
    *,
    by: str,
    why: str = "",
    force: Force | None = None,
    publisher: Mapping[str, Any] | None = None,
) -> Outcome:
    """Make the validated model the champion, unless something speaks against it.

    Idempotent: the same job published again is ``already_champion``, and one that was champion before stays
    ``superseded``, so that a task that is run again does not undo a rollback.

    :param by: who or what publishes: a person, or a DAG run.
    :param force: publish though rejected, of an older dataset version or run, not compared, or superseded.
    :param publisher: the task that publishes, as a :class:`~mlengine.core.job.JobKey` has it; kept in the history, so
        that a later try of it recognises its own entry.
    :raises PublishError: the model's files are not those that were validated; or others swap all the time.
    """
    unchanged(storage, report)
    for _ in range(_RACES):
        champion, generation = pointer(storage, bucket, report.model)
        if champion and champion.job_dir == report.job_dir and champion.fingerprint == report.fingerprint:
            mine = bool(publisher) and _task(champion.publisher) == _task(publisher or {})
            return _told(
                Outcome(Word.ALREADY_CHAMPION, f"{report.job_id} is the champion already.", champion, swapped=mine)
            )
        against = objection(storage, bucket, report, champion)
        if against is not None and force is None:
            return _told(against)
        made = _entry_for(report, champion, by, why, force if against is not None else None)
        made = replace(made, publisher=dict(publisher or {}))
        swapped = swap(storage, bucket, made, champion, generation)
        if swapped is not None:
            return _told(Outcome(Word.PUBLISHED, _announce(swapped), swapped, swapped=True))
    raise PublishError(
        f"{_RACES} other publications of {report.model} came first", hint="find out who publishes, then try again"
    )


def rollback(storage: Storage, bucket: str, model: str, *, by: str, why: str, to: int | None = None) -> Champion:
    """Make the champion before this one the champion again; or that of serial ``to``.

    Twice in a row goes back twice. The history grows by an entry; nothing is removed from it.

    :raises PublishError: there is nothing to go back to, its files are gone or changed, or no reason was given.
    """
    force = Force(by, why)
    for _ in range(_RACES):
        champion, generation = pointer(storage, bucket, model)
        if champion is None:
            raise PublishError(f"model {model} has no champion", hint="publish one first")
        target = _before(storage, bucket, model, champion) if to is None else entry(storage, bucket, model, to)
        if target.origin == champion.origin:
            raise PublishError(f"{target.job_id} is the champion of {model} already", hint="choose another serial")
        intact(storage, target)
        made = replace(
            target,
            action=Action.ROLLED_BACK,
            by=force.by,
            why=force.why,
            at=_now(),
            restores=target.origin,
            publisher={},
        )
        swapped = swap(storage, bucket, made, champion, generation)
        if swapped is not None:
            log.info("model %s: %s", model, _announce(swapped))
            return swapped
    raise PublishError(f"{_RACES} other publications of {model} came first", hint="try again")


def _task(publisher: Mapping[str, Any]) -> dict[str, Any]:
    """The task without its generation, which a clear changes."""
    return {name: value for name, value in publisher.items() if name != "generation"}


def _before(storage: Storage, bucket: str, model: str, champion: Champion) -> Champion:
    """Whom the champion replaced when it was first published."""
    first = champion if champion.restores is None else entry(storage, bucket, model, champion.restores)
    if first.previous is None:
        raise PublishError(
            f"{first.job_id} is the first champion of {model}: there is none before it",
            hint=f"see mlengine models history {model}; name another with --to SERIAL",
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


def _announce(champion: Champion) -> str:
    accuracy = "" if champion.accuracy is None else f" with accuracy {champion.accuracy:.4f}"
    verb = {Action.PUBLISHED: "is", Action.FORCED: "was forced to be", Action.ROLLED_BACK: "is again"}[champion.action]
    return f"{champion.job_id} {verb} the champion of {champion.model}{accuracy}, serial {champion.serial}."


def _told(outcome: Outcome) -> Outcome:
    log.info("publication %s: %s", outcome.word.value, outcome.sentence)
    return outcome


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
