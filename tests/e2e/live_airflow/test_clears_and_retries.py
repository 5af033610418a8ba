"""Tests, with the real scheduler, that a clear and a retry of a task are distinguished in every state of the task.

A retry keeps the job's key, a clear changes it. Clearing deferred tasks is tested in ``test_interrupted_waits.py``.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mlengine.core.job import JobState
from mlengine.testing.airflow_api import DagRun
from tests.support.live_airflow import Job, LiveAirflow, persist, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

STATES = ("success", "failed", "up_for_retry", "running")


@dataclass(frozen=True)
class Noted:
    """A run whose task records the job key of each try in a file."""

    live_airflow: LiveAirflow
    run: DagRun
    file: Path

    @property
    def keys(self) -> list[str]:
        return self.file.read_text().split() if self.file.exists() else []

    def is_in(self, *states: str) -> bool:
        return persist(self.live_airflow.api.tasks, self.run.dag_id, self.run.run_id)[0].state in states

    def run_is_over(self) -> bool:
        return bool(persist(self.live_airflow.api.run, self.run.dag_id, self.run.run_id).done)

    def clear(self) -> None:
        persist(self.live_airflow.api.clear, self.run, "keys")


def begin(live_airflow: LiveAirflow, dag_id: str, name: str, **conf: str) -> Noted:
    live_airflow.api.wait_for_dag(dag_id)
    file = live_airflow.root / f"keys-{name}-{uuid.uuid4().hex[:6]}"
    return Noted(live_airflow, live_airflow.trigger(dag_id, {"file": str(file), **conf}, file.name), file)


@pytest.fixture(scope="module")
def retried(live_airflow: LiveAirflow) -> Noted:
    """A run with retries. It is started before the other tests and checked after them."""
    return begin(live_airflow, "wait_retry", "retry")


@pytest.mark.usefixtures("retried")
def test_a_clear_changes_the_key_in_every_state(live_airflow: LiveAirflow) -> None:
    runs = {state: begin(live_airflow, "wait_keys", state, then=state) for state in STATES}
    for state, noted in runs.items():
        until(lambda noted=noted, state=state: noted.is_in(state) and noted.keys, f"it is {state}")  # type: ignore[misc]
        if state in {"success", "failed"}:
            # Right after a clear, Airflow may still end the run with the task's old state. It then never schedules the
            # task.
            until(noted.run_is_over, "the run ends")
        noted.clear()
    for state, noted in runs.items():
        # If the machine interrupts a try, Airflow retries the task, and the retry records the same key again.
        until(lambda noted=noted: len(set(noted.keys)) == 2, f"cleared while {state}, it has another key")  # type: ignore[misc]
        until(lambda noted=noted: noted.is_in("success"), "it ends")  # type: ignore[misc]
        assert len(set(noted.keys)) == 2


def test_a_retry_keeps_the_key(retried: Noted) -> None:
    until(lambda: retried.is_in("success"), "it succeeds with its third try")
    assert len(set(retried.keys)) == 1
    assert len(retried.keys) == 3


def test_a_task_that_is_cleared_while_it_is_queued_has_another_key(live_airflow: LiveAirflow) -> None:
    """A cleared task must get a new key because its first try may have submitted a job.

    Suspended workers keep the second try in the queue.
    """
    noted = begin(live_airflow, "wait_keys_soon", "queued", then="up_for_retry")
    until(lambda: noted.keys and noted.is_in("up_for_retry"), "its first try fails")
    workers = psutil.Process(live_airflow.airflow.processes["scheduler"].pid).children()
    for worker in workers:
        worker.suspend()
    try:
        until(lambda: noted.is_in("queued"), "its second try is queued")
        noted.clear()
    finally:
        for worker in workers:
            worker.resume()
    until(lambda: len(noted.keys) > 1 and noted.is_in("success"), "it runs again")
    first, *others = noted.keys
    assert first not in others


@pytest.mark.timeout(2400)
def test_after_a_limit_a_retry_by_airflow_does_not_train_again(live_airflow: LiveAirflow) -> None:
    """The scheduler stalls during the whole deferral, as it may on a busy machine.

    Airflow 3.3.2 then mistakes the exit of the task's first process for that of its second process, and retries the
    task (apache/airflow#71580). By then the job has been cancelled because it exceeded its limit. The stall must begin
    before the scheduler learns that the first process has exited. If it begins too late, Airflow does not retry, and
    the test starts over.
    """
    for _ in range(8):
        job = _stalled(live_airflow)
        assert [status.state for status in job.attempts] == [JobState.CANCELLED]
        assert "it exceeded running_timeout_seconds" in "\n".join(job.log())
        if job.task.try_number == 2:
            return
    pytest.fail("Airflow has retried none of the tasks")


def _stalled(live_airflow: LiveAirflow) -> Job:
    """Returns a job whose limit passed while the scheduler was stalled, after its wait has failed."""
    job = live_airflow.submit("stalled")
    until(lambda: job.state is JobState.RUNNING, "it runs")
    job.wait_in("wait_deadline")
    until(lambda: job.task.state in {"running", "deferred"}, "the wait begins", pause=0.02)
    scheduler = psutil.Process(live_airflow.airflow.processes["scheduler"].pid)
    scheduler.suspend()
    try:
        until(lambda: job.task.state in {"scheduled", "failed"}, "the trigger has sent its event")
    finally:
        scheduler.resume()
    until(lambda: job.task.state == "failed", f"the wait fails: {job.task}")
    return job
