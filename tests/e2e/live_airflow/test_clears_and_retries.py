"""What tells a clear from a retry, asked of the real scheduler in every state that a task is cleared in.

A retry keeps the job's key and a clear changes it. Deferred tasks are cleared in ``test_interrupted_waits.py``.
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
    """A run whose task notes the key of each of its tries."""

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
    """Started before the others and checked after them."""
    return begin(live_airflow, "wait_retry", "retry")


@pytest.mark.usefixtures("retried")
def test_a_clear_changes_the_key_in_every_state(live_airflow: LiveAirflow) -> None:
    runs = {state: begin(live_airflow, "wait_keys", state, then=state) for state in STATES}
    for state, noted in runs.items():
        until(lambda noted=noted, state=state: noted.is_in(state) and noted.keys, f"it is {state}")  # type: ignore[misc]
        if state in {"success", "failed"}:
            # Airflow may end a run with the task's old state just after a clear, and never schedules the task then.
            until(noted.run_is_over, "the run ends")
        noted.clear()
    for state, noted in runs.items():
        # A try that the machine itself cut short is a retry, and notes the same key again.
        until(lambda noted=noted: len(set(noted.keys)) == 2, f"cleared while {state}, it has another key")  # type: ignore[misc]
        until(lambda noted=noted: noted.is_in("success"), "it ends")  # type: ignore[misc]
        assert len(set(noted.keys)) == 2


def test_a_retry_keeps_the_key(retried: Noted) -> None:
    until(lambda: retried.is_in("success"), "it succeeds with its third try")
    assert len(set(retried.keys)) == 1
    assert len(retried.keys) == 3


def test_a_task_that_is_cleared_while_it_is_queued_has_another_key(live_airflow: LiveAirflow) -> None:
    """Its former try may have submitted: the workers are held up, so that the next one stays in the queue."""
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
    """The scheduler stalls during the whole deferral, as on a busy machine.

    Airflow 3.3.2 then takes the end of the task's first process for that of its second one and retries the task
    (apache/airflow#71580). The job was cancelled for its limit by then. The stall must begin before the scheduler hears
    of the first process's end; if it begins too late, there is no retry, and the test begins again.
    """
    for _ in range(8):
        job = _stalled(live_airflow)
        assert [status.state for status in job.attempts] == [JobState.CANCELLED]
        assert "it exceeded running_timeout_seconds" in "\n".join(job.log())
        if job.task.try_number == 2:
            return
    pytest.fail("Airflow has retried none of the tasks")


def _stalled(live_airflow: LiveAirflow) -> Job:
    """A job whose limit passes while the scheduler stalls; its wait has failed."""
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
