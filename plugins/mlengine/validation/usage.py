"""Determines the run time and cost of a job, for the report. Only backends with prices have a cost."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from mlengine.backends import EstimatesCost, RunsOnHost, Submission, TrainingBackend, find_attempts
from mlengine.core.errors import MlengineError
from mlengine.core.job import JobRecord, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec

log = logging.getLogger(__name__)


def job_usage(backend: TrainingBackend, record: JobRecord, job_dir: JobDir) -> dict[str, Any]:
    """Ask the backend for the time and cost of all attempts of a job.

    :returns: ``attempts``, ``queued_seconds`` and ``seconds``, from the first start to the end, with the service's own
        restarts between them; ``service_restarts``, if there were any. In addition, depending on the backend,
        ``usd_per_hour`` and ``usd`` (``seconds`` at list prices), or ``cores`` and ``core_seconds`` of this machine.
        Empty if the backend no longer has the job, or does not respond.
    """
    try:
        handles = find_attempts(backend, record.key, TrainingSpec.from_json(record.spec), record.regions)
        statuses = backend.describe(handles) if handles else []
        if all(status.started is None or status.ended is None for status in statuses):
            return {}
        return _times(statuses, record.service_restarts) | _costs(backend, record, job_dir, _running_seconds(statuses))
    except MlengineError as error:
        log.warning("time and cost of job %s are unknown: %s", record.job_id, error.message)
        return {}


def _running_seconds(statuses: Sequence[JobStatus]) -> float:
    return sum(_between(status.started, status.ended) for status in statuses)


def _times(statuses: Sequence[JobStatus], restarts: int) -> dict[str, Any]:
    queued = sum(_between(status.created, status.started) for status in statuses)
    return {
        "attempts": len(statuses),
        **({"service_restarts": restarts} if restarts else {}),
        "queued_seconds": round(queued, 1),
        "seconds": round(_running_seconds(statuses), 1),
    }


def _between(begin: float | None, end: float | None) -> float:
    return 0.0 if begin is None or end is None else max(0.0, end - begin)


def _costs(backend: TrainingBackend, record: JobRecord, job_dir: JobDir, seconds: float) -> dict[str, Any]:
    if isinstance(backend, EstimatesCost):
        spec = TrainingSpec.from_json(record.spec)
        submission = Submission(record.key, record.job_id, record.attempt, job_dir.uri, spec, fallback=record.fallback)
        rate = backend.usd_per_hour(submission)
        return {} if rate is None else {"usd_per_hour": round(rate, 4), "usd": round(rate * seconds / 3600, 4)}
    if isinstance(backend, RunsOnHost):
        cores = os.cpu_count() or 1
        return {"cores": cores, "core_seconds": round(cores * seconds, 1)}
    return {}
