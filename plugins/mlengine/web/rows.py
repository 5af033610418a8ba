"""The rows of the list of jobs: everything that the page shows of a job without opening it.

A row is read from the job's claim (``job.json``), from its backend, and from what the trainer and the validation wrote
to the job directory. :mod:`mlengine.web.index` keeps the rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any, Self

from mlengine.backends import EstimatesCost, Submission, TrainingBackend
from mlengine.core.errors import MlengineError, ObjectMissingError
from mlengine.core.job import FailureCause, JobHandle, JobRecord, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.jobs.progress import read_cursor, read_progress
from mlengine.storage.client import Storage
from mlengine.validation.report import Report, load_report

log = logging.getLogger(__name__)

# Seconds after which a row is final, and no longer read with each refresh.
_FINAL_AFTER_END = 3600.0  # after a job that did not succeed has ended
_FINAL_AFTER_VALIDATION = 600.0
_FINAL_WITHOUT_VALIDATION = 86400.0  # after a job has succeeded that was not validated
_FINAL_IF_UNKNOWN = 30 * 86400.0  # after the last event of a job whose state is unknown
_TEXT = frozenset(
    "model job_id backend state detail dag_id run_id by cluster decision dataset verdict metric".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Row:
    """One job in the list. Times are in seconds since the epoch.

    :param seen: when the row was read.
    :param final: whether the job is not expected to change.
    :param by: the user who triggered its run, or the run's type; empty if Airflow does not know the run.
    :param of: the last step; ``step`` is the current one.
    :param eta: seconds until the last step.
    :param rate: examples per second.
    :param cost_usd: cost of its machines so far, by list prices; ``None`` if the backend has no prices.
    """

    model: str
    job_id: str
    backend: str
    attempt: int
    state: str
    seen: float
    detail: str = ""
    dag_id: str = ""
    run_id: str = ""
    by: str = ""
    cluster: str = ""
    decision: str = ""
    dataset: str = ""
    claimed: float | None = None
    started: float | None = None
    ended: float | None = None
    step: int | None = None
    of: int | None = None
    eta: float | None = None
    rate: float | None = None
    verdict: str = ""
    metric: str = ""
    metric_value: float | None = None
    cost_usd: float | None = None
    final: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """A row that :meth:`to_json` returned. Unknown fields are ignored.

        :raises ValueError, KeyError, TypeError: a field is missing or has the wrong type.
        """
        known = {item.name: data[item.name] for item in fields(cls) if item.name in data}
        for name, value in known.items():
            number = not isinstance(value, bool) and isinstance(value, int | float)
            if name == "final":
                number = isinstance(value, bool)
            if not (isinstance(value, str) if name in _TEXT else value is None or number):
                raise ValueError(f"invalid {name}: {value!r}")
        return cls(**{**known, "state": JobState(data["state"]).value})


@dataclass(frozen=True)
class Claimed:
    """A job directory and its claim."""

    job_dir: JobDir
    record: JobRecord

    @property
    def handle(self) -> JobHandle | None:
        return self.record.handle(self.job_dir.uri)

    @property
    def model(self) -> str:
        """By the name of its folder, which is reliable; any job can write any name into its claim."""
        return self.job_dir.uri.rsplit("/", 2)[1]


def read_claim(storage: Storage, job_dir: JobDir) -> Claimed | None:
    """The claim in the directory; ``None`` if there is none or it is invalid."""
    try:
        return Claimed(job_dir, JobRecord.from_bytes(storage.read(job_dir.claim)))
    except ObjectMissingError:
        return None
    except MlengineError as error:
        if error.retryable:
            raise
        log.warning("Ignoring the job with an invalid %s: %s", job_dir.claim, error.message)
        return None


def describe(backend: TrainingBackend, claims: Sequence[Claimed]) -> dict[str, JobStatus]:
    """The status of each job that the backend knows, by job directory; empty if the backend does not respond."""
    handles = [claim.handle for claim in claims if claim.handle is not None]
    try:
        found = backend.describe(handles) if handles else []
    except MlengineError as error:
        log.warning("Could not get the status of jobs from backend %s: %s", backend.name, error.message)
        return {}
    return {status.handle.job_dir: status for status in found if not _not_found(status)}


def make_row(storage: Storage, claim: Claimed, status: JobStatus | None, backend: TrainingBackend | None) -> Row:
    """The row of a claimed job.

    :param status: from the backend; without it, the row has the state that the last wait reported.
    """
    record, job_dir = claim.record, claim.job_dir
    times = [float(event["time"]) for event in record.history if "time" in event]
    row = Row(
        model=claim.model,
        job_id=job_dir.job_id,
        backend=record.backend,
        attempt=record.attempt,
        state=JobState.QUEUED.value,
        detail="claimed, but not submitted yet",
        seen=time.time(),
        dag_id=str(record.owner.get("dag_id") or ""),
        run_id=str(record.owner.get("run_id") or ""),
        cluster=_cluster(record.spec),
        decision=_decision(record),
        dataset=str((record.inputs.get("dataset") or {}).get("version") or ""),
        claimed=times[0] if times else None,
    )
    if claim.handle is None:
        return row
    report = _report(storage, job_dir)
    row = _with_status(storage, row, claim.handle, status, report)
    if report is not None:
        row = replace(
            row, verdict=report.verdict.decision.value, metric=report.main_metric, metric_value=report.metric_value
        )
    row = _with_progress(storage, row, job_dir)
    row = replace(row, cost_usd=_cost(backend, record, job_dir, row))
    return replace(row, final=_is_final(row, report, times[-1] if times else 0.0))


def damaged(claim: Claimed, error: str) -> Row:
    """The row of a job whose claim is invalid, so that it does not hide the other jobs."""
    detail = f"job.json is invalid: {error}"
    return Row(claim.model, claim.job_dir.job_id, "", 0, JobState.UNKNOWN.value, time.time(), detail)


def _with_status(storage: Storage, row: Row, handle: JobHandle, status: JobStatus | None, report: Report | None) -> Row:
    if status is not None:
        return replace(row, state=status.state.value, detail=status.detail, started=status.started, ended=status.ended)
    cursor = read_cursor(storage, handle)
    if report is not None:
        return replace(row, state=JobState.SUCCEEDED.value, detail=cursor.detail)
    if cursor.state in {state.value for state in JobState if state.terminal}:
        return replace(row, state=cursor.state, detail=cursor.detail)
    last = f"; last reported state: {cursor.state}" if cursor.state else ""
    return replace(row, state=JobState.UNKNOWN.value, detail=f"the API server cannot query this job's backend{last}")


def _with_progress(storage: Storage, row: Row, job_dir: JobDir) -> Row:
    progress = read_progress(storage, job_dir)
    if progress is None:
        return row
    row = replace(row, step=progress.step, of=progress.of)
    if row.state in {JobState.QUEUED, JobState.PREPARING} or JobState(row.state).terminal:
        return row
    return replace(row, eta=progress.eta_seconds, rate=progress.examples_per_second)


def _not_found(status: JobStatus) -> bool:
    """Whether the backend knows nothing of the job, such as the ``local`` backend of another machine."""
    lost = status.failure is not None and status.failure.cause is FailureCause.LOST
    return lost and status.created is None and status.started is None


def _report(storage: Storage, job_dir: JobDir) -> Report | None:
    try:
        return load_report(storage, job_dir)
    except MlengineError as error:
        if error.retryable:
            raise
        return None


def _cost(backend: TrainingBackend | None, record: JobRecord, job_dir: JobDir, row: Row) -> float | None:
    if not isinstance(backend, EstimatesCost) or row.started is None:
        return None
    spec = TrainingSpec.from_json(record.spec)
    submission = Submission(record.key, record.job_id, record.attempt, job_dir.uri, spec, fallback=record.fallback)
    try:
        hourly = backend.usd_per_hour(submission)
    except MlengineError:
        return None
    return None if hourly is None else hourly * ((row.ended or row.seen) - row.started) / 3600


def _is_final(row: Row, report: Report | None, last_event: float) -> bool:
    quiet = row.seen - (row.ended or last_event)
    if not JobState(row.state).terminal:
        return row.state == JobState.UNKNOWN and quiet > _FINAL_IF_UNKNOWN
    if row.state != JobState.SUCCEEDED:
        return quiet > _FINAL_AFTER_END
    return (
        quiet > _FINAL_WITHOUT_VALIDATION
        if report is None
        else row.seen - _seconds(report.created) > _FINAL_AFTER_VALIDATION
    )


def _seconds(created: str) -> float:
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0


def _cluster(spec: Mapping[str, Any]) -> str:
    pools = spec.get("pools") or ()
    return ", ".join(_replicas(pool) for pool in pools if isinstance(pool, Mapping))


def _replicas(pool: Mapping[str, Any]) -> str:
    count, role = pool.get("count"), pool.get("role")
    return f"{count} {role}{'' if count == 1 or role == 'ps' else 's'}"


def _decision(record: JobRecord) -> str:
    """The decision of the last submission."""
    decisions = [str(event["event"]) for event in record.history if event.get("name")]
    return decisions[-1] if decisions else ""
