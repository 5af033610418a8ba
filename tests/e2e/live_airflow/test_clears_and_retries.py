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

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]

STATES = ("success", "failed", "up_for_retry", "running")


@dataclass(frozen=True)
class RecordedRun:
    """A run whose task records the job key of each try in a file."""

    live_airflow: LiveAirflow
    run: DagRun
    file: Path

    @property
    def keys(self) -> list[str]:
        return self.file.read_text().split() if self.file.exists() else []

    def is_in(self, *states: str) -> bool:
        return persist(self.live_airflow.api.tasks, self.run.dag_id, self.run.run_id)[0].state in states

    def run_has_ended(self) -> bool:
        return bool(persist(self.live_airflow.api.run, self.run.dag_id, self.run.run_id).done)

    def clear(self) -> None:
        persist(self.live_airflow.api.clear, self.run, "keys")


def start_run(live_airflow: LiveAirflow, dag_id: str, name: str, **conf: str) -> RecordedRun:
    live_airflow.api.wait_for_dag(dag_id)
    file = live_airflow.root / f"keys-{name}-{uuid.uuid4().hex[:6]}"
    return RecordedRun(live_airflow, live_airflow.trigger(dag_id, {"file": str(file), **conf}, file.name), file)


@pytest.fixture(scope="module")
def retried(live_airflow: LiveAirflow) -> RecordedRun:
    """A run with retries. It is started before the other tests and checked after them."""
    return start_run(live_airflow, "wait_retry", "retry")


@pytest.mark.usefixtures("retried")
def test_a_clear_changes_the_key_in_every_state(live_airflow: LiveAirflow) -> None:
    runs = {state: start_run(live_airflow, "wait_keys", state, then=state) for state in STATES}
    for state, recorded in runs.items():
        until(lambda recorded=recorded, state=state: recorded.is_in(state) and recorded.keys, f"the task is {state}")  # type: ignore[misc]
        if state in {"success", "failed"}:
            # Right after a clear, Airflow may still end the run with the task's old state. It then never schedules the
            # task.
            until(recorded.run_has_ended, "the run ends")
        recorded.clear()
    for state, recorded in runs.items():
        # If the machine interrupts a try, Airflow retries the task, and the retry records the same key again.
        until(lambda recorded=recorded: len(set(recorded.keys)) == 2, f"cleared while {state}, it has a second key")  # type: ignore[misc]
        until(lambda recorded=recorded: recorded.is_in("success"), "the task succeeds")  # type: ignore[misc]
        assert len(set(recorded.keys)) == 2


def test_a_retry_keeps_the_key(retried: RecordedRun) -> None:
    until(lambda: retried.is_in("success"), "the task succeeds with its third try")
    assert len(set(retried.keys)) == 1
    assert len(retried.keys) == 3


def test_a_task_that_is_cleared_while_queued_gets_a_new_key(live_airflow: LiveAirflow) -> None:
    """A cleared task must get a new key because its first try may have submitted a job.

    Suspended workers keep the second try in the queue.
    """
    recorded = start_run(live_airflow, "wait_keys_soon", "queued", then="up_for_retry")
    until(lambda: recorded.keys and recorded.is_in("up_for_retry"), "the first try fails")
    workers = psutil.Process(live_airflow.airflow.processes["scheduler"].pid).children()
    for worker in workers:
        worker.suspend()
    try:
        until(lambda: recorded.is_in("queued"), "the second try is queued")
        recorded.clear()
    finally:
        for worker in workers:
            worker.resume()
    until(lambda: len(recorded.keys) > 1 and recorded.is_in("success"), "the task runs again and succeeds")
    first, *others = recorded.keys
    assert first not in others


@pytest.mark.timeout(2400)
def test_a_retry_by_airflow_after_a_limit_does_not_train_again(live_airflow: LiveAirflow) -> None:
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
    pytest.fail("Airflow did not retry any of the tasks")


def _stalled(live_airflow: LiveAirflow) -> Job:
    """Returns a job whose limit passed while the scheduler was stalled, after its wait has failed."""
    job = live_airflow.submit("stalled")
    until(lambda: job.state is JobState.RUNNING, "the job runs")
    job.wait_in("wait_deadline")
    until(lambda: job.task.state in {"running", "deferred"}, "the wait begins", pause=0.02)
    scheduler = live_airflow.suspend("scheduler")
    try:
        until(lambda: job.task.state in {"scheduled", "failed"}, "the trigger has sent its event")
    finally:
        scheduler.resume()
    until(lambda: job.task.state == "failed", f"the wait fails: {job.task}")
    return job
