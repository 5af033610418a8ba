"""The rules for publication, and the check that a model's files have not changed."""

from __future__ import annotations

from datetime import datetime
from itertools import takewhile

from mlengine.champions.history import Champion, chain
from mlengine.core.errors import ModelError, PublishError
from mlengine.core.layout import JobDir
from mlengine.core.run_order import RunOrder
from mlengine.core.verdict import Decision
from mlengine.core.versions import version_key
from mlengine.promotion.outcome import Outcome, PublishDecision
from mlengine.storage.client import Storage
from mlengine.validation.comparison import Baseline, compare_outcomes
from mlengine.validation.export import resolve
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.predictions import load_predictions
from mlengine.validation.report import Report

_SKEW_SECONDS = 3600.0  # maximum clock difference between the machines that claim and that publish a job


def refusal(storage: Storage, bucket: str, report: Report, champion: Champion | None) -> Outcome | None:
    """The refusal to publish the model without force, with the reason; ``None`` if the model may be published."""
    refused = _refused_by_verdict(report, champion)
    if refused is not None or champion is None:
        return refused
    older = _older(report, champion)
    if older is not None:
        return older
    if _was_champion(storage, bucket, report, champion):
        text = f"{report.job_id} is a former champion; {champion.job_id} has replaced it."
        return Outcome(PublishDecision.SUPERSEDED, text, champion)
    if report.champion.get("serial") == champion.serial:
        return None
    return _compared_again(storage, report, champion)


def _refused_by_verdict(report: Report, champion: Champion | None) -> Outcome | None:
    """Refuse a model that was rejected or not compared."""
    decision, reasons = report.verdict.decision, " ".join(report.verdict.reasons)
    if decision.publishable:
        return None
    if decision is Decision.NOT_COMPARED:
        return Outcome(PublishDecision.NOT_COMPARED, f"{report.job_id} was not published: {reasons}", champion)
    return Outcome(PublishDecision.REJECTED, f"{report.job_id} was rejected: {reasons}", champion)


def _was_champion(storage: Storage, bucket: str, report: Report, champion: Champion) -> bool:
    """Whether the model is in the history. Entries older than the job's claim are not read."""
    claimed = _claimed(report)
    entries = chain(storage, bucket, champion)
    return any(_same_model(entry, report) for entry in takewhile(lambda entry: _seconds(entry.at) >= claimed, entries))


def _claimed(report: Report) -> float:
    """The earliest possible time of the job's claim, in seconds since the epoch.

    :returns: the time; 0 if mlengine did not submit the job.
    """
    times = [event.get("time") for event in report.lineage.get("events") or () if isinstance(event, dict)]
    known = [float(time) for time in times if isinstance(time, (int, float))]
    return min(known) - _SKEW_SECONDS if known else 0.0


def _seconds(at: str) -> float:
    """A time in seconds since the epoch; infinity if it is invalid, so that the entry is not skipped."""
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        return float("inf")


def _same_model(entry: Champion, report: Report) -> bool:
    """Whether the entry has the reported model. A job that exported again to the same directory has another model."""
    return entry.job_dir == report.job_dir and entry.fingerprint == report.fingerprint


def _older(report: Report, champion: Champion) -> Outcome | None:
    """Refuse a model that is older than the champion, such as one from a backfill.

    If both models were trained on versions of the same dataset, the versions are compared; otherwise, the runs are.
    """
    mine, theirs = str(report.dataset.get("version") or ""), champion.version
    if mine and theirs and report.dataset.get("name") == champion.dataset.get("name"):
        if version_key(mine) >= version_key(theirs):
            return None
        text = (
            f"{report.job_id} was trained on {mine}, but the champion {champion.job_id} was trained on the newer"
            f" {theirs}."
        )
        return Outcome(PublishDecision.OLDER_DATASET, text, champion)
    run, later = RunOrder.from_lineage(report.lineage), RunOrder.from_lineage(champion.lineage)
    if not run.older_than(later):
        return None
    text = (
        f"{report.job_id} belongs to the run of {run}, but the champion {champion.job_id} belongs to the later run of"
        f" {later}. To publish the older model anyway, force the publication."
    )
    return Outcome(PublishDecision.OLDER_RUN, text, champion)


def _compared_again(storage: Storage, report: Report, champion: Champion) -> Outcome | None:
    """Compare the model with a champion that was published after the validation, by their stored predictions.

    :returns: the refusal; ``None`` if the model may be published.
    """
    known = report.champion
    if (known.get("model_uri"), known.get("fingerprint")) == (champion.model_uri, champion.fingerprint):
        return None  # a rollback restored the champion that the validation compared with
    mine = load_predictions(storage, JobDir(report.job_dir)) if report.checks == "all" else None
    theirs = load_predictions(storage, JobDir(champion.job_dir))
    if mine is None or theirs is None or not mine.same_rows(theirs):
        return _not_compared(report, champion, "Validate the job again.")
    baseline = Baseline(champion.job_id, champion.size, Outcomes.of(theirs))
    checks, _ = compare_outcomes(Outcomes.of(mine), baseline, report.thresholds)
    if failed := [check.message for check in checks if not check.passed]:
        return Outcome(PublishDecision.WORSE, " ".join(failed), champion)
    if all(check.skipped for check in checks):
        return _not_compared(report, champion, " ".join(check.message for check in checks))
    return None


def _not_compared(report: Report, champion: Champion, why: str) -> Outcome | None:
    """Refuse a model that was not compared with the current champion; ``None`` if no comparison is required."""
    if not report.require_comparison or not _compares(report):
        return None
    text = (
        f"{report.job_id} was compared with {report.champion.get('job_id', 'no champion')}, but the champion is now"
        f" {champion.job_id}. {why}"
    )
    return Outcome(PublishDecision.NOT_COMPARED, text, champion)


def _compares(report: Report) -> bool:
    """Whether the report's thresholds ask for a comparison of metrics.

    This is the rule of ``Evaluation.comparable`` for a stored report.
    """
    if not report.metrics:
        return True
    thresholds = report.thresholds.for_task(report.task) if report.task else report.thresholds.metrics
    return any(item.max_regression is not None for item in thresholds.values())


def check_validated_files(storage: Storage, report: Report) -> None:
    """Check that the model's files are those that were validated.

    :raises PublishError: files are missing or changed.
    """
    _check_files(
        storage,
        report.model_uri,
        report.fingerprint,
        report.job_id,
        known=report.checks != "files" and not report.scorer,
    )


def check_published_files(storage: Storage, champion: Champion) -> None:
    """Check that the champion's files are those that were published.

    :raises PublishError: files are missing or changed.
    """
    _check_files(storage, champion.model_uri, champion.fingerprint, champion.job_id, known=False)


def _check_files(storage: Storage, model_uri: str, fingerprint: str, job_id: str, *, known: bool) -> None:
    try:
        export = resolve(storage, model_uri, known=known)
    except ModelError as error:
        raise PublishError(
            f"the model of {job_id} is incomplete: {error.message}", hint="train it again, or choose another model"
        ) from error
    if export.fingerprint != fingerprint:
        raise PublishError(
            f"the model of {job_id} at {model_uri} changed after it was validated", hint="validate it again"
        )
