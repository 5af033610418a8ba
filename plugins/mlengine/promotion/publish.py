"""Publish a validated model, publish a model with force, or roll back. Each of these replaces the pointer once.

The rules for publication are in :mod:`mlengine.promotion.rules`. A model that had to be compared with the current
champion, but was not, is published only with force.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from mlengine.champions.history import Action, Champion, chain, entry, no_entry, pointer, swap
from mlengine.core.errors import PublishError
from mlengine.core.metrics import format_value
from mlengine.promotion.outcome import Force, Outcome, PublishDecision
from mlengine.promotion.rules import check_published_files, check_validated_files, refusal
from mlengine.storage.client import Storage
from mlengine.validation.report import Report

log = logging.getLogger(__name__)

_MAX_CONFLICTS = 20  # concurrent changes of the pointer before giving up


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
    """Make the validated model the champion, unless a rule prevents it.

    This call is idempotent. Publishing the current champion again gives ``already_champion``. Publishing a former
    champion gives ``superseded``, so running a task again does not undo a rollback.

    :param by: the person or DAG run that publishes.
    :param why: the reason to store in the history; by default the reasons of the verdict.
    :param force: publish even if the model was rejected, is older than the champion, was not compared with it, or is
        superseded.
    :param publisher: the publishing task, as the fields of :class:`~mlengine.core.job.JobKey`. It is stored in the
        history, so that a retry recognises its own entry.
    :raises PublishError: the model's files changed after validation, or concurrent publications changed the champion
        first in each attempt.
    """
    check_validated_files(storage, report)
    for _ in range(_MAX_CONFLICTS):
        champion, generation = pointer(storage, bucket, report.model)
        if champion and champion.job_dir == report.job_dir and champion.fingerprint == report.fingerprint:
            mine = bool(publisher) and _task(champion.publisher) == _task(publisher or {})
            already = f"{report.job_id} is already the champion."
            return Outcome(PublishDecision.ALREADY_CHAMPION, already, champion, swapped=mine)
        refused = refusal(storage, bucket, report, champion)
        if refused is not None and force is None:
            return refused
        new = _entry_for(report, champion, by, why, force if refused is not None else None)
        new = replace(new, publisher=dict(publisher or {}))
        swapped = swap(storage, bucket, new, champion, generation)
        if swapped is not None:
            return Outcome(PublishDecision.PUBLISHED, _announce(swapped), swapped, swapped=True)
    raise PublishError(
        f"gave up after {_MAX_CONFLICTS} conflicts with concurrent publications of {report.model}",
        hint="check who is publishing with `mlengine models history`, then try again",
    )


def rollback(
    storage: Storage,
    bucket: str,
    model: str,
    *,
    by: str,
    why: str,
    to: int | None = None,
    replaces: int | None = None,
) -> Champion:
    """Make the previous champion, or the one with serial ``to``, the champion again.

    A second rollback restores the champion before that one. A rollback adds an entry to the history and removes none.

    :param to: the serial of the champion to restore; by default that of the previous champion.
    :param replaces: the expected serial of the current champion; by default, any champion is replaced.
    :raises PublishError: there is no such champion, its files are missing or changed, no reason was given, or another
        champion was published in the meantime.
    """
    force = Force(by, why)
    for _ in range(_MAX_CONFLICTS):
        champion, generation = pointer(storage, bucket, model)
        if champion is None:
            raise PublishError(f"model {model} has no champion", hint="publish one first")
        if replaces not in {None, champion.serial}:
            raise PublishError(
                f"the champion of {model} has changed: it is {champion.job_id}, serial {champion.serial}",
                hint="reload the page, then decide whether to roll back",
            )
        target = _before(storage, bucket, model, champion) if to is None else _in_history(storage, bucket, champion, to)
        if (target.job_dir, target.fingerprint) == (champion.job_dir, champion.fingerprint):
            raise PublishError(f"{target.job_id} is already the champion of {model}", hint="choose another serial")
        check_published_files(storage, target)
        new = replace(
            target,
            action=Action.ROLLED_BACK,
            by=force.by,
            why=force.why,
            at=_now(),
            restores=target.origin,
            publisher={},
        )
        swapped = swap(storage, bucket, new, champion, generation)
        if swapped is not None:
            log.info("model %s: %s", model, _announce(swapped))
            return swapped
    raise PublishError(
        f"gave up after {_MAX_CONFLICTS} conflicts with concurrent publications of {model}", hint="try again"
    )


def _task(publisher: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that identify the task. The generation is not one of them: it changes when the task is cleared."""
    return {name: value for name, value in publisher.items() if name != "generation"}


def _in_history(storage: Storage, bucket: str, champion: Champion, serial: int) -> Champion:
    """The entry with the given serial.

    :raises PublishError: there is no such entry, or it never took effect because another model was published first.
    """
    entries = takewhile(lambda one: one.serial >= serial, chain(storage, bucket, champion))
    found = next((one for one in entries if one.serial == serial), None)
    if found is None:
        raise no_entry(champion.model, serial)
    return found


def _before(storage: Storage, bucket: str, model: str, champion: Champion) -> Champion:
    """The entry that the champion replaced when it was first published."""
    first = champion if champion.restores is None else entry(storage, bucket, model, champion.restores)
    if first.previous is None:
        raise PublishError(
            f"{first.job_id} is the first champion of {model}; it has no predecessor",
            hint=f"see mlengine models history {model}; choose another with --to SERIAL",
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
        metric=report.main_metric,
        metric_value=report.metric_value,
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
    measured = "" if champion.metric_value is None else f" with {champion.metric} {format_value(champion.metric_value)}"
    verb = {Action.PUBLISHED: "is", Action.FORCED: "was forced to be", Action.ROLLED_BACK: "is again"}[champion.action]
    return f"{champion.job_id} {verb} the champion of {champion.model}{measured}, serial {champion.serial}."


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
