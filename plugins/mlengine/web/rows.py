"""One line of the list of jobs: all that the page shows of a job without opening it, and how it is put together.

What is known of a job lies in several places: its claim (``job.json``), the backend that runs it, what the trainer and
the gate wrote into its dir. A row is read from there; :mod:`mlengine.web.index` keeps it.
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

# A row of a job that ended this long ago is not read anew with each look; seconds.
_QUIET = 3600.0
_JUDGED = 600.0
_NEVER_JUDGED = 86400.0
_FORGOTTEN = 30 * 86400.0
_TEXT = frozenset(
    "model job_id backend state detail dag_id run_id by cluster decision dataset verdict".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Row:
    """A job at a glance. Times are seconds since the epoch.

    :param seen: when it was put together; ``settled``: nothing about it is expected to change.
    :param by: who triggered its run, where Airflow knows.
    :param cost_usd: what its machines cost so far by list price, where the backend can say.
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
    accuracy: float | None = None
    cost_usd: float | None = None
    settled: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """:raises ValueError: it is no row; :raises KeyError, TypeError: likewise."""
        known = {item.name: data[item.name] for item in fields(cls) if item.name in data}
        for name, value in known.items():
            number = not isinstance(value, bool) and isinstance(value, int | float)
            if name == "settled":
                number = isinstance(value, bool)
            if not (isinstance(value, str) if name in _TEXT else value is None or number):
                raise ValueError(f"{name} is {value!r}")
        return cls(**{**known, "state": JobState(data["state"]).value})


@dataclass(frozen=True)
class Claimed:
    """A job dir and its claim."""

    job_dir: JobDir
    record: JobRecord

    @property
    def handle(self) -> JobHandle | None:
        return self.record.handle(self.job_dir.uri)

    @property
    def model(self) -> str:
        """As its folder says; what a claim says is the word of whoever wrote it."""
        return self.job_dir.uri.rsplit("/", 2)[1]


def read_claim(storage: Storage, job_dir: JobDir) -> Claimed | None:
    """``None`` where no job was submitted, or the claim cannot be read."""
    try:
        return Claimed(job_dir, JobRecord.from_bytes(storage.read(job_dir.claim)))
    except ObjectMissingError:
        return None
    except MlengineError as error:
        if error.retryable:
            raise
        log.warning("%s: %s", job_dir.claim, error.message)
        return None


def describe(backend: TrainingBackend, claims: Sequence[Claimed]) -> dict[str, JobStatus]:
    """What the backend says of each job it knows, by job dir; one that does not answer says nothing."""
    handles = [claim.handle for claim in claims if claim.handle is not None]
    try:
        found = backend.describe(handles) if handles else []
    except MlengineError as error:
        log.warning("backend %s does not say how its jobs are: %s", backend.name, error.message)
        return {}
    return {status.handle.job_dir: status for status in found if not _unknown_here(status)}


def make_row(storage: Storage, claim: Claimed, status: JobStatus | None, backend: TrainingBackend | None) -> Row:
    """The row of a claimed job.

    :param status: the backend's word; without it, what the last wait told stands in.
    """
    record, job_dir = claim.record, claim.job_dir
    times = [float(event["time"]) for event in record.history if "time" in event]
    row = Row(
        model=claim.model,
        job_id=job_dir.job_id,
        backend=record.backend,
        attempt=record.attempt,
        state=JobState.QUEUED.value,
        detail="claimed, and not submitted yet",
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
        row = replace(row, verdict=report.verdict.decision.value, accuracy=report.accuracy)
    row = _with_progress(storage, row, job_dir)
    row = replace(row, cost_usd=_cost(backend, record, job_dir, row))
    return replace(row, settled=_settled(row, report, times[-1] if times else 0.0))


def damaged(claim: Claimed, why: str) -> Row:
    """The row of a job whose claim makes no sense: it must not hide the others."""
    detail = f"job.json makes no sense: {why}"
    return Row(claim.model, claim.job_dir.job_id, "", 0, JobState.UNKNOWN.value, time.time(), detail)


def _with_status(storage: Storage, row: Row, handle: JobHandle, status: JobStatus | None, report: Report | None) -> Row:
    if status is not None:
        return replace(row, state=status.state.value, detail=status.detail, started=status.started, ended=status.ended)
    cursor = read_cursor(storage, handle)
    if report is not None:
        return replace(row, state=JobState.SUCCEEDED.value, detail=cursor.detail)
    if cursor.state in {state.value for state in JobState if state.terminal}:
        return replace(row, state=cursor.state, detail=cursor.detail)
    last = f"; last logged: {cursor.state}" if cursor.state else ""
    return replace(row, state=JobState.UNKNOWN.value, detail=f"its backend cannot be asked from here{last}")


def _with_progress(storage: Storage, row: Row, job_dir: JobDir) -> Row:
    progress = read_progress(storage, job_dir)
    if progress is None:
        return row
    row = replace(row, step=progress.step, of=progress.of)
    if row.state in {JobState.QUEUED, JobState.PREPARING} or JobState(row.state).terminal:
        return row
    return replace(row, eta=progress.eta_seconds, rate=progress.examples_per_second)


def _unknown_here(status: JobStatus) -> bool:
    """A backend that looks in another place than the one that trains has no news, whatever it calls that."""
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
    submission = Submission(record.key, record.job_id, record.attempt, job_dir.uri, TrainingSpec.from_json(record.spec))
    try:
        hourly = backend.usd_per_hour(submission)
    except MlengineError:
        return None
    return None if hourly is None else hourly * ((row.ended or row.seen) - row.started) / 3600


def _settled(row: Row, report: Report | None, last_event: float) -> bool:
    quiet = row.seen - (row.ended or last_event)
    if not JobState(row.state).terminal:
        return row.state == JobState.UNKNOWN and quiet > _FORGOTTEN
    if row.state != JobState.SUCCEEDED:
        return quiet > _QUIET
    return quiet > _NEVER_JUDGED if report is None else row.seen - _seconds(report.created) > _JUDGED


def _seconds(created: str) -> float:
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0


def _cluster(spec: Mapping[str, Any]) -> str:
    pools = spec.get("pools") or ()
    return ", ".join(f"{pool.get('count')} {pool.get('role')}" for pool in pools if isinstance(pool, Mapping))


def _decision(record: JobRecord) -> str:
    """The last decision about it that was a submission's."""
    named = [str(event["event"]) for event in record.history if event.get("name")]
    return named[-1] if named else ""
