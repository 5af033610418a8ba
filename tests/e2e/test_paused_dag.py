"""A paused DAG gets no worker: the limits of its deferred waits end their jobs all the same."""

from __future__ import annotations

import pytest

from mlengine.core.job import JobState
from tests.support.live_airflow import LiveAirflow, persist, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DAGS = {"running_timeout_seconds": "wait_paused_deadline", "execution_timeout": "wait_paused_limit"}


def test_a_limit_ends_the_job_of_a_paused_dag(live_airflow: LiveAirflow) -> None:
    jobs = {limit: live_airflow.submit(f"paused-{limit.replace('_', '-')}") for limit in DAGS}
    for limit, job in jobs.items():
        until(lambda job=job: job.state is JobState.RUNNING, f"{job.name} runs")  # type: ignore[misc]
        job.wait_in(DAGS[limit])
    for limit, job in jobs.items():
        until(job.watched, f"{job.name} is waited for")
        persist(live_airflow.api.set_paused, DAGS[limit], True)
        assert (job.state, job.task.state) == (JobState.RUNNING, "deferred"), "paused before the limit passed"
    for job in jobs.values():
        until(lambda job=job: job.state is JobState.CANCELLED, f"{job.name} is cancelled")  # type: ignore[misc]
    for job in jobs.values():
        until(lambda job=job: job.task.state == "scheduled", f"the trigger of {job.name} reports")  # type: ignore[misc]
    for limit, job in jobs.items():
        persist(live_airflow.api.set_paused, DAGS[limit], False)
        until(lambda job=job: job.task.state == "failed", f"the task of {job.name} fails")  # type: ignore[misc]
        assert any(f"it exceeded {limit}" in line for line in job.log())
        assert [status.state for status in job.attempts] == [JobState.CANCELLED], "there is no other attempt"
