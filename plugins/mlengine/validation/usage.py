"""What a job took: time, and money where the backend has prices. For the report; a backend that is silent changes
nothing.
"""

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


def took(backend: TrainingBackend, record: JobRecord, job_dir: JobDir) -> dict[str, Any]:
    """``attempts``, ``queued_seconds`` and ``seconds`` of them all; then, as the backend knows, ``usd_per_hour`` and
    ``usd`` (list prices for the time that they ran), or ``cores`` and ``core_seconds`` of the one machine.

    Empty if the backend does not know the job any more, or does not answer.
    """
    try:
        handles = find_attempts(backend, record.key, TrainingSpec.from_json(record.spec))
        statuses = backend.describe(handles) if handles else []
        if all(status.started is None or status.ended is None for status in statuses):
            return {}
        return _times(statuses) | _costs(backend, record, job_dir, _ran(statuses))
    except MlengineError as error:
        log.warning("what job %s took is not known: %s", record.job_id, error.message)
        return {}


def _ran(statuses: Sequence[JobStatus]) -> float:
    return sum(_between(one.started, one.ended) for one in statuses)


def _times(statuses: Sequence[JobStatus]) -> dict[str, Any]:
    queued = sum(_between(one.created, one.started) for one in statuses)
    return {"attempts": len(statuses), "queued_seconds": round(queued, 1), "seconds": round(_ran(statuses), 1)}


def _between(begin: float | None, end: float | None) -> float:
    return 0.0 if begin is None or end is None else max(0.0, end - begin)


def _costs(backend: TrainingBackend, record: JobRecord, job_dir: JobDir, ran: float) -> dict[str, Any]:
    if isinstance(backend, EstimatesCost):
        spec = TrainingSpec.from_json(record.spec)
        rate = backend.usd_per_hour(Submission(record.key, record.job_id, record.attempt, job_dir.uri, spec))
        return {} if rate is None else {"usd_per_hour": round(rate, 4), "usd": round(rate * ran / 3600, 4)}
    if isinstance(backend, RunsOnHost):
        cores = os.cpu_count() or 1
        return {"cores": cores, "core_seconds": round(cores * ran, 1)}
    return {}
