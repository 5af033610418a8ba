"""The description of an attempt in the history of ``job.json``."""

from __future__ import annotations

import pytest

from mlengine.core.job import CANCELLED_BY_PERSON, SERVICE_RESTART, SERVICE_RESUMED, JobRecord
from mlengine.jobs.submission import submitted_at

RECORD = JobRecord("k", "mnist_1", "mnist", "memory", {}, history=({"time": 10.0, "event": "claimed"},))


@pytest.mark.parametrize("later", ["ended_with_task", SERVICE_RESTART, SERVICE_RESUMED, CANCELLED_BY_PERSON])
def test_later_events_of_an_attempt_do_not_restart_its_time_limits(later: str) -> None:
    record = RECORD.with_attempt(1, "job-1", {"time": 20.0, "event": "fresh_submit", "attempt": 1})
    record = record.with_attempt(1, "job-1", {"time": 30.0, "event": later, "attempt": 1})
    assert submitted_at(record) == 20.0
