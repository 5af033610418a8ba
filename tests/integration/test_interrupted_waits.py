"""Every way to end a wait, deferred and not, in every state of its job: in memory, with Airflow's calls made by hand.

What Airflow really calls, and when, is asked of the real one in ``tests/e2e/test_interrupted_waits.py`` and
``test_waits_without_triggerer.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout, TaskDeferred

from mlengine import backends, connections
from mlengine.core.job import JobKey, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.core.xcoms import JobXCom
from mlengine.jobs.submission import Intent, Submitter
from mlengine.sensors.training_job import TrainingJobSensor
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from mlengine.triggers import training_job
from mlengine.triggers.training_job import TrainingJobTrigger

pytestmark = pytest.mark.integration

STATES = (JobState.QUEUED, JobState.PREPARING, JobState.RUNNING, JobState.SUCCEEDED)
LAST_TRY: Any = {"ti": SimpleNamespace(dag_id="d", run_id="r", task_id="wait", map_index=-1, try_number=3, max_tries=2)}
NOW = {"queued_timeout_seconds": 0.0, "running_timeout_seconds": 0.0}


@pytest.fixture
def backend() -> MemoryBackend:
    memory = MemoryBackend()
    backends.register("memory", lambda **_: memory)
    return memory


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, storage: Storage, bucket: str, backend: MemoryBackend) -> Iterator[JobXCom]:
    """One that was submitted, and is QUEUED."""
    monkeypatch.setattr(training_job, "EARLIEST_EVENT_SECONDS", 0.0)
    connections.forget_connections()
    intent = Intent(JobKey("d", "r", "submit"), "m", JobDir.of(bucket, "m", "j"), TrainingSpec("trainer.task"))
    yield Submitter(storage, backend).submit(intent).to_json()
    connections.forget_connections()


class Wait:
    """A wait that has begun; then its job came into ``state``, unseen."""

    def __init__(
        self, backend: MemoryBackend, job: JobXCom, state: JobState, *, deferrable: bool, **limits: Any
    ) -> None:
        limits = {"poll_interval_seconds": 0.01, "mode": "poke", **limits}
        self.sensor = TrainingJobSensor(task_id="wait", job=job, gcp_conn_id=None, deferrable=deferrable, **limits)
        self.trigger: TrainingJobTrigger | None = None
        if deferrable:
            with pytest.raises(TaskDeferred) as caught:
                self.sensor.execute(LAST_TRY)
            _, arguments = caught.value.trigger.serialize()
            self.trigger = TrainingJobTrigger(**arguments)
        elif not limits:
            assert not self.sensor.poke(LAST_TRY).is_done
        if state.terminal:
            backend.end(job["name"], state)
        else:
            backend.jobs[0].state = state

    def killed(self) -> None:
        """Marked, cleared, or its DAG run ended: by its worker, or by the triggerer."""
        if self.trigger is None:
            self.sensor.on_kill()
        else:
            asyncio.run(self.trigger.on_kill())

    def timed_out(self) -> None:
        """By ``execution_timeout``."""
        if self.trigger is None:
            # Airflow raises it in the middle of whatever the task does.
            def too_late(_: object) -> None:
                raise AirflowTaskTimeout

            self.sensor.poke = too_late  # type: ignore[method-assign,assignment]
            with pytest.raises(AirflowTaskTimeout):
                self.sensor.execute(LAST_TRY)
            return
        with suppress(AirflowException):
            self.sensor.resume_execution("__fail__", {"error": "Trigger timeout"}, LAST_TRY)

    def too_late(self) -> None:
        """By a deadline of ours."""
        with suppress(AirflowFailException):
            if self.trigger is None:
                self.sensor.execute(LAST_TRY)
            else:
                late = {"event": "deadline", "limit": "running_timeout_seconds"}
                self.sensor.execute_complete(LAST_TRY, late)


EVENTS: dict[str, tuple[Callable[[Wait], None], dict[str, float]]] = {
    "killed": (Wait.killed, {}),
    "task timeout": (Wait.timed_out, {}),
    "our deadline": (Wait.too_late, NOW),
}


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "poke"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_the_job_ends_with_its_task(
    job: JobXCom, event: str, state: JobState, deferrable: bool, backend: MemoryBackend
) -> None:
    happens, limits = EVENTS[event]
    happens(Wait(backend, job, state, deferrable=deferrable, **limits))
    assert [one.state for one in backend.jobs] == [state if state.terminal else JobState.CANCELLED]


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "poke"])
@pytest.mark.parametrize("state", STATES)
def test_a_cleared_wait_goes_on_from_the_checkpoint(
    job: JobXCom, state: JobState, deferrable: bool, backend: MemoryBackend
) -> None:
    Wait(backend, job, state, deferrable=deferrable).killed()
    again = TrainingJobSensor(task_id="wait", job=job, gcp_conn_id=None, deferrable=deferrable)
    if state.terminal:
        result = again.execute(LAST_TRY) if deferrable else again.poke(LAST_TRY).xcom_value
        assert result is not None
        assert (result["state"], len(backend.jobs)) == ("SUCCEEDED", 1)
        return
    if deferrable:
        with pytest.raises(TaskDeferred):
            again.execute(LAST_TRY)
    else:
        again.poke_interval, again._first_poll = 0.0, True
        assert not again.poke(LAST_TRY).is_done
    assert [one.state for one in backend.jobs] == [JobState.CANCELLED, JobState.QUEUED]
    assert backend.live[0].handle.attempt == 2
