"""Reads the row of a job from its directory and its backend.

The directory contains the job's claim (``job.json``), and the files of the trainer, the wait and the validation.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlengine.backends import EstimatesCost, Submission, TrainingBackend
from mlengine.core.errors import MlengineError, ObjectMissingError
from mlengine.core.job import FailureCause, JobHandle, JobRecord, JobState, JobStatus, dag_of
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec, counted
from mlengine.job_index.rows import Row
from mlengine.jobs.progress import read_cursor, read_progress
from mlengine.storage.client import Storage
from mlengine.validation.report import Report

log = logging.getLogger(__name__)

# Seconds after which a row is final. Jobs with final rows are not read at each refresh.
_FINAL_AFTER_END = 3600.0  # after the end of a job that did not succeed
_FINAL_AFTER_VALIDATION = 600.0
_FINAL_WITHOUT_VALIDATION = 86400.0  # after the end of a job that succeeded but was not validated
_FINAL_IF_UNKNOWN = 30 * 86400.0  # after the last event of a job whose state is unknown

# The exceptions that code can raise when a record contains an invalid value.
INVALID = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
# After this many failed calls, the remaining jobs are not described: the cause is not a few invalid records.
_MAX_FAILURES = 16


@dataclass(frozen=True)
class Claimed:
    """A job directory, its claim, and the generation of ``job.json``."""

    job_dir: JobDir
    record: JobRecord
    generation: int

    @property
    def handle(self) -> JobHandle | None:
        return self.record.handle(self.job_dir.uri)

    @property
    def model(self) -> str:
        """The model's name, from the path of the job directory. A job can write another name into its claim."""
        return self.job_dir.uri.rsplit("/", 2)[1]


@dataclass(frozen=True)
class CurrentJob:
    """A job that was read just now.

    :param status: ``None`` if the job is not submitted yet, or if its backend does not know it.
    """

    claim: Claimed
    row: Row
    status: JobStatus | None


def read_claim(storage: Storage, job_dir: JobDir) -> Claimed | None:
    """The claim in the directory; ``None`` if there is none or it is invalid."""
    try:
        data, generation = storage.read_with_generation(job_dir.claim)
        return Claimed(job_dir, JobRecord.from_bytes(data), generation)
    except ObjectMissingError:
        return None
    except MlengineError as error:
        if error.retryable:
            raise
        log.warning("Ignoring a job because %s is invalid: %s", job_dir.claim, error.message)
        return None


def describe(backend: TrainingBackend, claims: Sequence[Claimed]) -> dict[str, JobStatus]:
    """The status of each job that the backend knows, by job directory; empty if the backend does not respond."""
    handles = [claim.handle for claim in claims if claim.handle is not None]
    found = _Description(backend).of(handles) if handles else []
    return {status.handle.job_dir: status for status in found if not _not_found(status)}


class _Description:
    """Describes jobs in one call. If the call fails, each half is described separately, so that an invalid record
    hides only its own job.
    """

    def __init__(self, backend: TrainingBackend) -> None:
        self._backend = backend
        self._failures = 0

    def of(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        if self._failures >= _MAX_FAILURES:
            return []
        try:
            return self._backend.describe(handles)
        except (MlengineError, *INVALID) as error:
            message = error.message if isinstance(error, MlengineError) else repr(error)
            log.warning("Could not get the status of jobs from backend %s: %s", self._backend.name, message)
            self._failures += 1
            if len(handles) == 1 or (isinstance(error, MlengineError) and error.retryable):
                return []
        half = len(handles) // 2
        return self.of(handles[:half]) + self.of(handles[half:])


def make_row(
    storage: Storage,
    claim: Claimed,
    status: JobStatus | None,
    backend: TrainingBackend | None,
    *,
    validated: bool = True,
) -> Row:
    """The row of a job that has a claim.

    :param status: the status from the backend; without it, the row has the state that the last wait recorded.
    :param validated: whether to look for a report.
    """
    record, job_dir = claim.record, claim.job_dir
    times = [float(event["time"]) for event in record.history if "time" in event]
    row = Row(
        model=claim.model,
        job_id=job_dir.job_id,
        backend=record.backend,
        attempt=record.attempt,
        state=JobState.QUEUED.value,
        detail="claimed but not yet submitted",
        seen=time.time(),
        dag_id=dag_of(record.owner),
        run_id=str(record.owner.get("run_id") or "") if dag_of(record.owner) else "",
        cluster=_cluster(record.spec),
        decision=_decision(record),
        dataset=str((record.inputs.get("dataset") or {}).get("version") or ""),
        claimed=times[0] if times else None,
        claim_generation=claim.generation,
    )
    if claim.handle is None:
        return row
    report, generation = _report(storage, job_dir) if validated else (None, 0)
    row = _with_progress(storage, _with_status(storage, row, claim.handle, status, report), job_dir)
    row = row._replace(
        cost_usd=_cost(backend, record, job_dir, row),
        final_at=_final_at(row, times[-1] if times else 0.0),
        report_generation=generation,
    )
    return row if report is None else with_report(row, report, generation)


def with_report(row: Row, report: Report, generation: int) -> Row:
    """The row with the result of a validation.

    :param generation: the generation of ``report.json``.
    """
    return row._replace(
        verdict=report.verdict.decision.value,
        metric=report.main_metric,
        metric_value=report.metric_value,
        report_generation=generation,
        final_at=_seconds(report.created) + _FINAL_AFTER_VALIDATION
        if row.state == JobState.SUCCEEDED
        else row.final_at,
    )


def damaged(claim: Claimed, error: str) -> Row:
    """The row of a job whose files are invalid. One damaged job must not hide the other jobs.

    The row contains the job's DAG, which determines who may see the job.
    """
    detail = f"job.json or another file of the job is invalid: {error}"
    return Row(
        claim.model,
        claim.job_dir.job_id,
        "",
        0,
        JobState.UNKNOWN.value,
        time.time(),
        detail,
        dag_id=dag_of(claim.record.owner),
        claim_generation=claim.generation,
    )


def _with_status(storage: Storage, row: Row, handle: JobHandle, status: JobStatus | None, report: Report | None) -> Row:
    if status is not None:
        return row._replace(state=status.state.value, detail=status.detail, started=status.started, ended=status.ended)
    cursor = read_cursor(storage, handle)
    if report is not None:
        return row._replace(state=JobState.SUCCEEDED.value, detail=cursor.detail)
    if cursor.state in {state.value for state in JobState if state.terminal}:
        return row._replace(state=cursor.state, detail=cursor.detail)
    last = f"; last reported state: {cursor.state}" if cursor.state else ""
    return row._replace(state=JobState.UNKNOWN.value, detail=f"the API server cannot query this job's backend{last}")


def _with_progress(storage: Storage, row: Row, job_dir: JobDir) -> Row:
    progress = read_progress(storage, job_dir)
    if progress is None:
        return row
    row = row._replace(step=progress.step, of=progress.of)
    if row.state in {JobState.QUEUED, JobState.PREPARING} or JobState(row.state).terminal:
        return row
    return row._replace(eta=progress.eta_seconds, rate=progress.examples_per_second)


def _not_found(status: JobStatus) -> bool:
    """Whether the backend does not know the job, for example because the job ran on another machine's local backend."""
    lost = status.failure is not None and status.failure.cause is FailureCause.LOST
    return lost and status.created is None and status.started is None


def _report(storage: Storage, job_dir: JobDir) -> tuple[Report | None, int]:
    """The report and its generation. The generation is known even if the report is invalid."""
    generation = 0
    try:
        data, generation = storage.read_with_generation(job_dir.report)
        return Report.from_json(json.loads(data)), generation
    except MlengineError as error:
        if error.retryable:
            raise
    except ValueError:
        log.warning("Ignoring the invalid report %s", job_dir.report)
    return None, generation


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


def _final_at(row: Row, last_event: float) -> float | None:
    """The time at which the row becomes final. This does not apply to jobs that succeeded and were validated."""
    quiet_since = row.ended or last_event
    if row.state == JobState.UNKNOWN:
        return quiet_since + _FINAL_IF_UNKNOWN
    if not JobState(row.state).terminal:
        return None
    return quiet_since + (_FINAL_WITHOUT_VALIDATION if row.state == JobState.SUCCEEDED else _FINAL_AFTER_END)


def _seconds(created: str) -> float:
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0


def _cluster(spec: Mapping[str, Any]) -> str:
    pools = spec.get("pools") or ()
    return ", ".join(counted(pool.get("count"), pool.get("role")) for pool in pools if isinstance(pool, Mapping))


def _decision(record: JobRecord) -> str:
    """The decision of the last submission."""
    decisions = [str(event["event"]) for event in record.history if event.get("name")]
    return decisions[-1] if decisions else ""
