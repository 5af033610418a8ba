"""Tests every way to end a wait, deferred or not, in every state of its job: in memory, with Airflow's calls simulated.

Which methods a real Airflow calls, and when, is tested in ``test_interrupted_waits.py`` and
``test_waits_without_triggerer.py`` in ``tests/e2e/live_airflow``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
from mlengine.jobs import log_forwarding, threads
from mlengine.jobs.polling import Poller
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
    """A submitted job in state QUEUED."""
    monkeypatch.setattr(training_job, "EARLIEST_EVENT_SECONDS", 0.0)
    connections.forget_connections()
    intent = Intent(JobKey("d", "r", "submit"), "m", JobDir.of(bucket, "m", "j"), TrainingSpec("trainer.task"))
    yield Submitter(storage, backend).submit(intent).to_json()
    connections.forget_connections()


class Wait:
    """A wait that has begun and has not seen that its job is now in ``state``."""

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
        """Simulate that the task was marked or cleared, or that its run ended.

        The worker or the triggerer then calls ``on_kill``.
        """
        if self.trigger is None:
            self.sensor.on_kill()
        else:
            asyncio.run(self.trigger.on_kill())

    def timed_out(self) -> None:
        """Simulate that ``execution_timeout`` has passed."""
        if self.trigger is None:
            # Airflow raises this exception at an arbitrary point of the task.
            def too_late(_: object) -> None:
                raise AirflowTaskTimeout

            self.sensor.poke = too_late  # type: ignore[method-assign,assignment]
            with pytest.raises(AirflowTaskTimeout):
                self.sensor.execute(LAST_TRY)
            return
        with suppress(AirflowException):
            self.sensor.resume_execution("__fail__", {"error": "Trigger timeout"}, LAST_TRY)

    def too_late(self) -> None:
        """Simulate that a time limit of mlengine has passed."""
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
def test_the_job_ends_when_its_wait_ends(
    job: JobXCom, event: str, state: JobState, deferrable: bool, backend: MemoryBackend
) -> None:
    happens, limits = EVENTS[event]
    happens(Wait(backend, job, state, deferrable=deferrable, **limits))
    assert [one.state for one in backend.jobs] == [state if state.terminal else JobState.CANCELLED]


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "poke"])
@pytest.mark.parametrize("state", STATES)
def test_a_cleared_wait_resumes_from_the_checkpoint(
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


@pytest.fixture
def hanging_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, str], None]]:
    """Makes a module's call to the bucket hang."""
    go_on = threading.Event()
    monkeypatch.setattr(threads, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(threads.BUCKET, "_pool", ThreadPoolExecutor(2))
    yield lambda module, name: monkeypatch.setattr(module, name, lambda *_: go_on.wait(60.0))
    go_on.set()


def deferred(job: JobXCom, **limits: Any) -> TrainingJobTrigger:
    sensor = TrainingJobSensor(
        task_id="wait", job=job, gcp_conn_id=None, deferrable=True, poll_interval_seconds=0.01, **limits
    )
    with pytest.raises(TaskDeferred) as caught:
        sensor.execute(LAST_TRY)
    trigger = caught.value.trigger
    assert isinstance(trigger, TrainingJobTrigger)
    return trigger


async def first_event(trigger: TrainingJobTrigger) -> dict[str, Any]:
    return dict((await anext(trigger.run())).payload)


def test_a_bucket_that_hangs_before_the_first_poll_does_not_delay_a_deadline(
    job: JobXCom, backend: MemoryBackend, hanging_bucket: Callable[[Any, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging_bucket(training_job, "read_cursor")
    monkeypatch.setattr(training_job, "CURSOR_SECONDS", 0.1)
    trigger = deferred(job, queued_timeout_seconds=0.5)
    event = asyncio.run(asyncio.wait_for(first_event(trigger), 10.0))
    assert event["limit"] == "queued_timeout_seconds"
    assert backend.live == []


@pytest.mark.parametrize("ends", [True, False])
def test_a_bucket_that_hangs_delays_neither_the_end_nor_a_deadline(
    job: JobXCom, backend: MemoryBackend, hanging_bucket: Callable[[Any, str], None], ends: bool
) -> None:
    hanging_bucket(log_forwarding, "write_cursor")
    hanging_bucket(log_forwarding, "read_progress")
    backend.jobs[0].state = JobState.RUNNING
    trigger = deferred(job, queued_timeout_seconds=0.5, running_timeout_seconds=60.0 if ends else 1.0)

    async def main() -> list[dict[str, Any]]:
        waits = [asyncio.create_task(first_event(trigger)) for _ in range(5)]
        await asyncio.sleep(0.5)
        if ends:
            backend.end(job["name"], JobState.SUCCEEDED)
        return await asyncio.wait_for(asyncio.gather(*waits), 10.0)

    assert {event["event"] for event in asyncio.run(main())} >= ({"ended"} if ends else {"deadline"})
    assert backend.live == []


def test_a_bucket_that_hangs_does_not_delay_a_kill(
    job: JobXCom, backend: MemoryBackend, hanging_bucket: Callable[[Any, str], None]
) -> None:
    """Airflow calls ``on_kill`` only after the cancelled wait has ended."""
    trigger = deferred(job)

    async def main() -> float:
        wait = asyncio.create_task(first_event(trigger))
        await asyncio.sleep(0.5)
        hanging_bucket(log_forwarding, "write_cursor")
        backend.jobs[0].state = JobState.RUNNING
        await asyncio.sleep(0.5)  # the log line about the new state makes the trigger save the cursor
        wait.cancel()
        began = time.monotonic()
        await asyncio.wait_for(asyncio.gather(wait, return_exceptions=True), 10.0)
        return time.monotonic() - began

    assert asyncio.run(main()) < 3.0


def test_a_job_with_an_unknown_outcome_is_polled_with_pauses(
    job: JobXCom, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Vertex AI a job can be failed while its error is not available yet."""
    backend.jobs[0].state = JobState.RUNNING
    trigger = deferred(job, queued_timeout_seconds=0.0, running_timeout_seconds=2.0)
    trigger.poll_interval_seconds = 600.0

    async def main() -> int:
        wait = asyncio.create_task(first_event(trigger))
        while backend.jobs[0].started is None:  # the limit counts from the first poll that finds the job running
            await asyncio.sleep(0.01)
        monkeypatch.setattr(Poller, "poll_soon", lambda _: None)  # the poller notices the end late
        backend.jobs[0].state, backend.jobs[0].ended = JobState.UNKNOWN, time.time()
        await asyncio.sleep(4.0)
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)
        return backend.calls.count("describe")

    assert asyncio.run(main()) <= 5
    assert "cancel" not in backend.calls
