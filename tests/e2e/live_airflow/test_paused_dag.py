"""Tests that the limits of deferred waits end their jobs even if the DAG is paused, when no task gets a worker."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mlengine.core.job import JobState
from tests.support.live_airflow import Job, LiveAirflow, persist, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]

DAGS = {"running_timeout_seconds": "wait_paused_deadline", "execution_timeout": "wait_paused_limit"}


def test_a_limit_cancels_the_job_of_a_paused_dag(live_airflow: LiveAirflow) -> None:
    jobs = _paused_in_time(live_airflow, DAGS)
    late = {limit: f"{dag_id}_later" for limit, dag_id in DAGS.items() if limit not in jobs}
    jobs |= _paused_in_time(live_airflow, late)
    assert jobs.keys() == DAGS.keys(), "a DAG was not paused before the limit passed"
    for job in jobs.values():
        until(lambda job=job: job.state is JobState.CANCELLED, f"{job.name} is cancelled")  # type: ignore[misc]
    for job in jobs.values():
        until(lambda job=job: job.task.state == "scheduled", f"the trigger of {job.name} sends its event")  # type: ignore[misc]
    for limit, job in jobs.items():
        _set_paused(live_airflow, job, False)
        until(lambda job=job: job.task.state == "failed", f"the task of {job.name} fails")  # type: ignore[misc]
        assert any(f"it exceeded {limit}" in line for line in job.log())
        assert [status.state for status in job.attempts] == [JobState.CANCELLED], "there is another attempt"


def _paused_in_time(live_airflow: LiveAirflow, dags: Mapping[str, str]) -> dict[str, Job]:
    """Returns running jobs by the limit of their wait; only those whose DAG was paused before the limit passed."""
    jobs = {limit: live_airflow.submit(f"paused-{limit.replace('_', '-')}") for limit in dags}
    for limit, job in jobs.items():
        until(lambda job=job: job.state is JobState.RUNNING, f"{job.name} runs")  # type: ignore[misc]
        job.wait_in(dags[limit])
    for limit, job in list(jobs.items()):
        until(lambda job=job: job.watched() or job.state.terminal, f"a task waits for {job.name}")  # type: ignore[misc]
        _set_paused(live_airflow, job, True)
        if (job.state, job.task.state) != (JobState.RUNNING, "deferred"):
            _set_paused(live_airflow, job, False)
            del jobs[limit]
    return jobs


def _set_paused(live_airflow: LiveAirflow, job: Job, paused: bool) -> None:
    assert job.run is not None
    persist(live_airflow.api.set_paused, job.run.dag_id, paused)
