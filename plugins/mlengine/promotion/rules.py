"""What speaks against a publication, and whether a model's files are still what they were."""

from __future__ import annotations

from datetime import datetime
from itertools import takewhile

from mlengine.champions.history import Champion, chain
from mlengine.core.errors import ModelError, PublishError
from mlengine.core.layout import JobDir
from mlengine.core.run_order import RunOrder
from mlengine.core.verdict import Decision
from mlengine.core.versions import version_key
from mlengine.promotion.outcome import Outcome, Word
from mlengine.storage.client import Storage
from mlengine.validation.export import resolve
from mlengine.validation.paired_test import Paired
from mlengine.validation.quality import compare
from mlengine.validation.report import Report, load_predictions

_SKEW_SECONDS = 3600.0  # by which the clocks of the machines that claim and that publish may differ


def objection(storage: Storage, bucket: str, report: Report, champion: Champion | None) -> Outcome | None:
    """Why the model must not be champion without force; ``None`` if it may."""
    refused = _refused(report, champion)
    if refused is not None or champion is None:
        return refused
    older = _older(report, champion)
    if older is not None:
        return older
    if _was_champion(storage, bucket, report, champion):
        text = f"{report.job_id} was champion before; {champion.job_id} is now. A repeated publication changes nothing."
        return Outcome(Word.SUPERSEDED, text, champion)
    if report.champion.get("serial") == champion.serial:
        return None
    return _compared_again(storage, report, champion)


def _refused(report: Report, champion: Champion | None) -> Outcome | None:
    """What the verdict itself speaks against."""
    decision, reasons = report.verdict.decision, " ".join(report.verdict.reasons)
    if decision.publishable:
        return None
    if decision is Decision.NOT_COMPARED:
        return Outcome(Word.NOT_COMPARED, f"{report.job_id} is not published: {reasons}", champion)
    return Outcome(Word.REJECTED, f"{report.job_id} was rejected: {reasons}", champion)


def _was_champion(storage: Storage, bucket: str, report: Report, champion: Champion) -> bool:
    """Entries from before the job was claimed are not its own: a long history costs a new job no reads."""
    claimed = _claimed(report)
    entries = chain(storage, bucket, champion)
    return any(_same_model(was, report) for was in takewhile(lambda was: _seconds(was.at) >= claimed, entries))


def _claimed(report: Report) -> float:
    """When the job was claimed, at the earliest; 0 for a job that was not submitted by us."""
    times = [event.get("time") for event in report.lineage.get("events") or () if isinstance(event, dict)]
    known = [float(time) for time in times if isinstance(time, (int, float))]
    return min(known) - _SKEW_SECONDS if known else 0.0


def _seconds(at: str) -> float:
    """A time that cannot be read may be any: it is taken for now."""
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        return float("inf")


def _same_model(was: Champion, report: Report) -> bool:
    """A job that exported anew into its own dir has another model."""
    return was.job_dir == report.job_dir and was.fingerprint == report.fingerprint


def _older(report: Report, champion: Champion) -> Outcome | None:
    """A backfill of old data must not undo a newer champion.

    Versions of one dataset say themselves which is newer. Without them, or with versions of different datasets, which
    have no order, the runs do.
    """
    mine, theirs = str(report.dataset.get("version") or ""), champion.version
    if mine and theirs and report.dataset.get("name") == champion.dataset.get("name"):
        if version_key(mine) >= version_key(theirs):
            return None
        text = f"{report.job_id} was trained on {mine}, the champion {champion.job_id} on the newer {theirs}."
        return Outcome(Word.OLDER_DATASET, text, champion)
    run, later = RunOrder.from_lineage(report.lineage), RunOrder.from_lineage(champion.lineage)
    if not run.older_than(later):
        return None
    text = (
        f"{report.job_id} belongs to the run of {run}, the champion {champion.job_id} to the later run of {later}."
        " An older run does not replace the champion of a newer one, unless it is published with force."
    )
    return Outcome(Word.OLDER_RUN, text, champion)


def _compared_again(storage: Storage, report: Report, champion: Champion) -> Outcome | None:
    """The champion changed after the validation: both models' kept predictions stand in for running them."""
    if report.champion.get("model_uri") == champion.model_uri:
        return None  # rolled back and forth: it is the model it was compared with
    mine = load_predictions(storage, JobDir(report.job_dir)) if report.checks == "all" else None
    theirs = load_predictions(storage, JobDir(champion.job_dir))
    if mine is None or theirs is None or mine.heldout != theirs.heldout or mine.labels != theirs.labels:
        if not report.require_comparison or report.thresholds.tolerance is None:
            return None
        text = (
            f"{report.job_id} was validated against {report.champion.get('job_id', 'no champion')}, but"
            f" {champion.job_id} is champion now. Validate it again."
        )
        return Outcome(Word.NOT_COMPARED, text, champion)
    check = compare(Paired.of(mine.labels, mine.classes, theirs.classes), champion.job_id, report.thresholds)
    return None if check.passed else Outcome(Word.WORSE, check.sentence, champion)


def unchanged(storage: Storage, report: Report) -> None:
    """:raises PublishError: the model's files are not those that were validated."""
    _same(storage, report.model_uri, report.fingerprint, report.job_id, graph=report.checks != "files")


def intact(storage: Storage, champion: Champion) -> None:
    """:raises PublishError: the model's files are gone, or not those that were published."""
    _same(storage, champion.model_uri, champion.fingerprint, champion.job_id, graph=False)


def _same(storage: Storage, model_uri: str, fingerprint: str, job_id: str, *, graph: bool) -> None:
    try:
        export = resolve(storage, model_uri, graph=graph)
    except ModelError as error:
        raise PublishError(
            f"the model of {job_id} is not whole: {error.message}", hint="train it again, or choose another"
        ) from error
    if export.fingerprint != fingerprint:
        raise PublishError(
            f"the model of {job_id} at {model_uri} changed after it was validated", hint="validate it again"
        )
