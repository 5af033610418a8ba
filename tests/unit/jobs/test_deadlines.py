"""Deadlines: the limit that a job exceeds, and the serialisation of deadlines in a trigger."""

from __future__ import annotations

import json
import math
import time

import pytest

from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.jobs.deadlines import Deadlines, backoff

# Far in the future, because the value is computed when the tests are collected, long before they run.
FAR = time.time() + 30 * 86400.0


def job(state: JobState, started: float | None = None, ended: float | None = None) -> JobStatus:
    return JobStatus(JobHandle("local", "n", "j", 1, "gs://bucket/j"), state, started=started, ended=ended)


@pytest.mark.parametrize(
    ("deadlines", "state", "limit"),
    [
        (Deadlines(), JobState.QUEUED, None),
        (Deadlines(queued_until=1.0), JobState.QUEUED, "queued_timeout_seconds"),
        (Deadlines(queued_until=1.0), JobState.PREPARING, "queued_timeout_seconds"),
        (Deadlines(queued_until=1.0), JobState.RUNNING, None),
        (Deadlines(max_wait_until=1.0), JobState.QUEUED, "max_wait_seconds"),
        (Deadlines(max_wait_until=1.0), JobState.PREPARING, "max_wait_seconds"),
        (Deadlines(max_wait_until=1.0), JobState.RUNNING, None),
        (Deadlines(running_until=1.0), JobState.RUNNING, "running_timeout_seconds"),
        (Deadlines(execution_until=1.0, running_until=FAR), JobState.UNKNOWN, "execution_timeout"),
        (Deadlines(wait_until=1.0), JobState.PREPARING, "timeout"),
        (Deadlines(FAR, FAR, FAR, FAR), JobState.QUEUED, None),
    ],
)
def test_the_exceeded_limit_is_named(deadlines: Deadlines, state: JobState, limit: str | None) -> None:
    assert deadlines.exceeded(job(state)) == limit


@pytest.mark.parametrize("ended", [job(JobState.SUCCEEDED), job(JobState.UNKNOWN, ended=2.0)])
def test_a_job_that_has_ended_exceeds_no_limit(ended: JobStatus) -> None:
    deadlines = Deadlines(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert deadlines.exceeded(ended) is None
    assert deadlines.seconds_left(ended) is None


def test_the_queue_limit_counts_only_while_queued() -> None:
    deadlines = Deadlines.starting(time.time(), 10.0, 100.0)
    assert deadlines.seconds_left(job(JobState.QUEUED)) == pytest.approx(10.0, abs=1.0)
    assert deadlines.seconds_left(job(JobState.RUNNING)) == pytest.approx(110.0, abs=1.0)
    assert Deadlines().seconds_left(job(JobState.UNKNOWN)) is None
    assert Deadlines(execution_until=1.0).seconds_left(job(JobState.UNKNOWN)) == 0.0


def test_a_restarted_job_may_wait_again() -> None:
    deadlines = Deadlines(queued_until=1.0, max_wait_until=1.0)
    assert deadlines.exceeded(job(JobState.PREPARING, time.time())) is None
    assert deadlines.seconds_left(job(JobState.QUEUED, time.time())) is None


def test_the_shorter_wait_limit_applies() -> None:
    now = time.time()
    deadlines = Deadlines.starting(now, 100.0, 1000.0, max_wait_seconds=10.0)
    assert deadlines.seconds_left(job(JobState.PREPARING)) == pytest.approx(10.0, abs=1.0)
    assert deadlines.seconds_left(job(JobState.RUNNING, now)) == pytest.approx(1010.0, abs=1.0)
    assert deadlines.limited


def test_without_a_wait_limit_the_run_is_limited_from_its_start() -> None:
    deadlines = Deadlines.starting(1.0, math.inf, 100.0)
    assert deadlines.limited
    assert deadlines.seconds_left(job(JobState.PREPARING)) is None
    now = time.time()
    assert deadlines.exceeded(job(JobState.RUNNING, now - 50.0)) is None
    assert deadlines.exceeded(job(JobState.RUNNING, now - 101.0)) == "running_timeout_seconds"
    assert not Deadlines.starting(1.0, math.inf, math.inf).limited


@pytest.mark.parametrize(
    "deadlines", [Deadlines(), Deadlines(1.0, 2.0, 3.0, 4.0, 5.0, 6.0), Deadlines(running_until=math.inf)]
)
def test_deadlines_survive_json(deadlines: Deadlines) -> None:
    text = json.dumps(deadlines.to_json(), allow_nan=False)
    assert Deadlines.from_json(json.loads(text)) == deadlines


def test_fewer_deadlines_of_an_older_trigger_are_read() -> None:
    assert Deadlines.from_json({"queued_until": 1.0, "running_until": 2.0}) == Deadlines(1.0, 2.0)


def test_the_pause_before_an_attempt_doubles_up_to_an_hour() -> None:
    assert [backoff(attempt, 10.0) for attempt in (1, 2, 3, 20)] == [10.0, 20.0, 40.0, 3600.0]
