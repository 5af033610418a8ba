"""Tests how Vertex AI jobs wait, restart and end: in the emulator, in the backend, and in the wait.

The emulator's jobs are in memory: they run as soon as they are submitted, and end when the test or a fault says so.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from mlengine import backends, connections
from mlengine.backends import Submission
from mlengine.backends.vertex import backend as vertex_backend
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.backends.vertex.client import RestClient
from mlengine.backends.vertex.location import anonymous_credentials
from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.jobs.follow import follow
from mlengine.core.errors import JobFailedError, NoQuotaError, StorageConflictError, StorageUnavailableError
from mlengine.core.job import Decision, FailureCause, JobHandle, JobKey, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.jobs import following
from mlengine.jobs.submission import Intent, Submitted, Submitter, ended_with_task
from mlengine.sensors.training_job import TrainingJobSensor
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from mlengine.testing.emulator import RunningEmulator, running
from mlengine.triggers import training_job
from mlengine.triggers.training_job import TrainingJobTrigger
from mlengine.validation.usage import job_usage
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration

CREATE = "CreateCustomJob"
FOR_EVER = 10 * 365 * 24 * 3600.0


class RunningJobs(MemoryBackend):
    """A backend whose jobs run immediately."""

    def submit(self, submission: Submission) -> JobHandle:
        handle = super().submit(submission)
        self.jobs[-1].state = JobState.RUNNING
        return handle


@pytest.fixture
def cloud() -> RunningJobs:
    return RunningJobs()


@pytest.fixture
def package(storage: Storage, bucket: str) -> str:
    local.put(storage, bucket, local.sdist(""), "t-1.0.tar.gz")
    return f"{bucket}/packages/t-1.0.tar.gz"


@pytest.fixture
def service(cloud: RunningJobs, storage: Storage, tmp_path: Path) -> Iterator[RunningEmulator]:
    with running(tmp_path / "emulator", backend=cloud, storage=storage) as started:
        yield started


@pytest.fixture
def make(service: RunningEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., VertexBackend]]:
    """Creates a vertex backend on the emulator; tasks use the one that was created last."""
    made: list[VertexBackend] = []

    def make(**options: Any) -> VertexBackend:
        client = RestClient(anonymous_credentials(), deadline=5, sleep=lambda _: time.sleep(0.01))
        made.append(VertexBackend(**service.settings, client=client, **options))
        return made[-1]

    before = backends._BACKENDS["vertex"]
    backends.register("vertex", lambda **_: made[-1])
    monkeypatch.setattr(training_job, "EARLIEST_EVENT_SECONDS", 0.0)
    connections.forget_connections()
    yield make
    backends.register("vertex", before)
    connections.forget_connections()


def submit(vertex: VertexBackend, package: str, storage: Storage, *, attempts: int = 3, **spec: Any) -> JobHandle:
    """Submit a job with a claim, as the task does."""
    bucket = package.rpartition("/packages/")[0]
    intent = Intent(
        JobKey("dag", "r", "submit"), "m", JobDir(f"{bucket}/m/j"), TrainingSpec("t.task", (package,), **spec)
    )
    return Submitter(storage, vertex, max_attempts=attempts).submit(intent).handle


def wait_for(vertex: VertexBackend, handle: JobHandle, wanted: Callable[[JobStatus], bool]) -> JobStatus:
    until = time.monotonic() + 60.0
    while time.monotonic() < until:
        status = vertex.describe([handle])[0]
        if wanted(status):
            return status
        time.sleep(0.02)
    raise AssertionError(f"the job is still {status}")


def ended(status: JobStatus) -> bool:
    return status.state.terminal


def sensor(handle: JobHandle, **more: Any) -> TrainingJobSensor:
    arguments = {"deferrable": True, "mode": "poke", "poll_interval_seconds": 0.05, "gcp_conn_id": None, **more}
    job = Submitted(handle, Decision.FRESH_SUBMIT).to_json()
    return TrainingJobSensor(task_id="wait", job=job, **arguments)


def context() -> Any:
    return {"ti": SimpleNamespace(dag_id="dag", run_id="r", task_id="wait", map_index=-1, try_number=1, max_tries=2)}


def deferred(handle: JobHandle, **more: Any) -> TrainingJobTrigger:
    with pytest.raises(TaskDeferred) as caught:
        sensor(handle, **more).execute(context())
    arguments = caught.value.trigger.serialize()[1]
    return TrainingJobTrigger(**json.loads(json.dumps(arguments, allow_nan=False)))


async def first_event(trigger: TrainingJobTrigger) -> dict[str, Any]:
    async for event in trigger.run():
        return dict(event.payload)
    raise AssertionError("a trigger without an event")


# The wait for machines


@pytest.mark.parametrize(("action", "state"), [("queue", JobState.QUEUED), ("stick", JobState.PREPARING)])
def test_max_wait_seconds_covers_queued_and_pending(
    service: RunningEmulator, make: Any, package: str, storage: Storage, action: str, state: JobState
) -> None:
    vertex = make(max_wait_seconds=1)
    service.script(CREATE, action, seconds=60)
    handle = submit(vertex, package, storage)
    assert vertex.describe([handle])[0].state is state
    event = asyncio.run(asyncio.wait_for(first_event(deferred(handle)), 20.0))
    assert event == {"job_id": handle.job_id, "event": "deadline", "limit": "max_wait_seconds"}
    assert vertex.describe([handle])[0].state is JobState.CANCELLED
    with pytest.raises(AirflowFailException, match=r"exceeded max_wait_seconds\n.*maxWaitTime"):
        sensor(handle).execute_complete(context(), event)


def test_max_wait_seconds_applies_without_a_triggerer(
    service: RunningEmulator, make: Any, package: str, storage: Storage
) -> None:
    vertex = make(max_wait_seconds=1)
    service.script(CREATE, "stick")
    handle = submit(vertex, package, storage)
    with pytest.raises(AirflowFailException, match="exceeded max_wait_seconds"):
        sensor(handle, deferrable=False, poke_interval=0.2).execute(context())
    assert vertex.describe([handle])[0].state is JobState.CANCELLED


def test_max_wait_seconds_applies_on_the_command_line(
    service: RunningEmulator, make: Any, package: str, storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    vertex = make(max_wait_seconds=1)
    service.script(CREATE, "stick")
    handle = submit(vertex, package, storage)
    submitted = Submitted(handle, Decision.FRESH_SUBMIT)
    assert follow(vertex, storage, Submitter(storage, vertex), submitted) == ExitCode.JOB_FAILED
    assert "cancelled: it exceeded max_wait_seconds (1 s)" in capsys.readouterr().out
    assert vertex.describe([handle])[0].state is JobState.CANCELLED


AWAY = {"region": "europe-west4", "max_wait_seconds": 600}


@pytest.fixture
def succeeding(cloud: RunningJobs) -> Iterator[None]:
    """Lets each running job succeed."""
    stop = threading.Event()

    def end() -> None:
        while not stop.wait(0.05):
            for job in cloud.live:
                cloud.end(job.handle.name, JobState.SUCCEEDED)

    thread = threading.Thread(target=end)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.fixture(params=[None, StorageUnavailableError, StorageConflictError])
def record_refused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The first record of a cancellation succeeds, fails in an outage, or conflicts with another process's."""
    monkeypatch.setattr(following, "FIRST_PAUSE_SECONDS", 0.1)
    refusals = [] if request.param is None else [request.param("refused")]
    replace = Storage.replace

    def refuse(storage: Storage, uri: str, data: bytes, generation: int) -> int:
        if b"ended_with_task" in data and refusals:
            raise refusals.pop()
        return replace(storage, uri, data, generation)

    monkeypatch.setattr(Storage, "replace", refuse)
    yield
    assert not refusals


def attempts(vertex: VertexBackend, storage: Storage, handle: JobHandle) -> list[JobStatus]:
    """All of the service's jobs that belong to a claim."""
    return vertex.describe(vertex.find(Submitter(storage, vertex).record(JobDir(handle.job_dir)).key))


@pytest.mark.usefixtures("record_refused")
def test_a_task_continues_with_a_fallback_after_max_wait_seconds(
    service: RunningEmulator, make: Any, package: str, storage: Storage
) -> None:
    """Uses a deferred wait: the trigger cancels the job, and the task submits the next attempt."""
    vertex = make(max_wait_seconds=1, fallbacks=[AWAY])
    service.script(CREATE, "stick")
    handle = submit(vertex, package, storage)
    event = asyncio.run(asyncio.wait_for(first_event(deferred(handle)), 20.0))
    assert event["limit"] == "max_wait_seconds"
    assert ended_with_task(Submitter(storage, vertex).record(JobDir(handle.job_dir))), (
        "the trigger must have recorded the decision"
    )
    with pytest.raises(TaskDeferred) as caught:
        sensor(handle).execute_complete(context(), event)
    trigger = caught.value.trigger.serialize()[1]
    assert "/europe-west4/" in trigger["handle"]["name"]
    assert trigger["handle"]["attempt"] == 2
    assert trigger["max_wait_until"] == pytest.approx(time.time() + 600, abs=30), "the limit of the fallback must apply"
    assert vertex.describe([handle])[0].state is JobState.CANCELLED
    assert [status.handle.attempt for status in attempts(vertex, storage, handle)] == [1, 2]


@pytest.mark.usefixtures("record_refused")
def test_a_fallback_is_used_without_a_triggerer_after_max_wait_seconds(
    service: RunningEmulator, make: Any, package: str, storage: Storage, succeeding: None
) -> None:
    vertex = make(max_wait_seconds=1, fallbacks=[AWAY])
    service.script(CREATE, "stick")
    handle = submit(vertex, package, storage)
    found = sensor(handle, deferrable=False, poke_interval=0.2).execute(context())
    assert (found["state"], found["attempt"]) == ("SUCCEEDED", 2)


@pytest.mark.parametrize("method", ["GetCustomJob", "CancelCustomJob"])
def test_an_outage_after_max_wait_seconds_does_not_skip_a_fallback(
    service: RunningEmulator, make: Any, package: str, storage: Storage, method: str
) -> None:
    """Vertex AI does not respond when the worker resumes: the wait continues, and the next trigger ends the attempt."""
    vertex = make(max_wait_seconds=1, fallbacks=[AWAY])
    service.script(CREATE, "stick")
    handle = submit(vertex, package, storage)
    deferred(handle)
    time.sleep(1.1)
    event = {"job_id": handle.job_id, "event": "deadline", "limit": "max_wait_seconds"}
    service.script(method, "status", status="UNAVAILABLE", times=10_000)
    with pytest.raises(TaskDeferred) as caught:
        sensor(handle).execute_complete(context(), event)
    service.server.script.clear()
    trigger = TrainingJobTrigger(**caught.value.trigger.serialize()[1])
    event = asyncio.run(asyncio.wait_for(first_event(trigger), 20.0))
    with pytest.raises(TaskDeferred):
        sensor(handle).execute_complete(context(), event)
    assert [status.handle.attempt for status in attempts(vertex, storage, handle)] == [1, 2]


def test_the_task_fails_when_the_last_fallback_exceeds_max_wait_seconds(
    service: RunningEmulator, make: Any, package: str, storage: Storage
) -> None:
    service.script(CREATE, "stick", times=2)
    vertex = make(max_wait_seconds=1, fallbacks=[{**AWAY, "max_wait_seconds": 1}])
    handle = submit(vertex, package, storage)
    with pytest.raises(AirflowFailException, match="exceeded max_wait_seconds"):
        sensor(handle, deferrable=False, poke_interval=0.2).execute(context())
    assert [status.state for status in attempts(vertex, storage, handle)] == [JobState.CANCELLED] * 2


@pytest.mark.usefixtures("record_refused")
def test_the_command_line_uses_a_fallback_after_max_wait_seconds(
    service: RunningEmulator,
    make: Any,
    package: str,
    storage: Storage,
    succeeding: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vertex = make(max_wait_seconds=1, fallbacks=[AWAY])
    service.script(CREATE, "stick")
    submitted = Submitted(submit(vertex, package, storage), Decision.FRESH_SUBMIT)
    assert follow(vertex, storage, Submitter(storage, vertex), submitted) == ExitCode.OK
    printed = capsys.readouterr().out
    assert printed.count("cancelled: it exceeded max_wait_seconds (1 s)") == 1
    assert "attempt 2" in printed


def test_restarts_are_counted_on_the_command_line(
    service: RunningEmulator, make: Any, package: str, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.05)
    vertex = make(spot=True)
    service.script(CREATE, "stockout", restarts=2, seconds=0.6)
    handle = submit(vertex, package, storage)
    submitted = Submitted(handle, Decision.FRESH_SUBMIT)
    assert follow(vertex, storage, Submitter(storage, vertex), submitted) == ExitCode.JOB_FAILED
    assert Submitter(storage, vertex).record(JobDir(handle.job_dir)).service_restarts == 2


def test_the_limit_of_an_ml_engine_job_file_applies(make: Any, package: str, storage: Storage) -> None:
    handle = submit(make(), package, storage, max_wait_seconds=1800)
    trigger = deferred(handle)
    assert trigger.deadlines.max_wait_until == pytest.approx(time.time() + 1800, abs=30)
    assert trigger.deadlines.queued_until == float("inf"), "the setting must apply only to jobs without a limit"
    both = deferred(handle, queued_timeout_seconds=60.0).deadlines
    assert both.queued_until == pytest.approx(time.time() + 60, abs=30), "a limit given by the user must apply"


def test_a_wait_limit_of_0_waits_forever_but_the_run_is_still_limited(
    service: RunningEmulator, make: Any, package: str, storage: Storage
) -> None:
    vertex = make(max_wait_seconds=0)
    service.script(CREATE, "stick")
    handle = submit(vertex, package, storage, max_wait_seconds=1800)
    trigger = deferred(handle, running_timeout_seconds=100.0)
    preparing = JobStatus(handle, JobState.PREPARING)
    assert trigger.deadlines.seconds_left(preparing) is None
    assert trigger.deadlines.exceeded(preparing) is None
    running = JobStatus(handle, JobState.RUNNING, started=time.time())
    assert trigger.deadlines.seconds_left(running) == pytest.approx(100.0, abs=5.0)
    with pytest.raises(TaskDeferred) as caught:
        sensor(handle).execute(context())
    assert caught.value.timeout is None


def test_a_restarted_job_that_waits_again_is_not_cancelled(
    service: RunningEmulator, make: Any, package: str, storage: Storage
) -> None:
    """ML Engine: a restart "cannot lead to a maximum wait time cancellation"."""
    vertex = make(max_wait_seconds=1)
    service.script(CREATE, "restart", seconds=2.0)
    handle = submit(vertex, package, storage)
    again = wait_for(vertex, handle, lambda status: status.restarting)
    assert again.state in {JobState.QUEUED, JobState.PREPARING}
    assert again.detail == "restarted by Vertex AI"
    trigger = deferred(handle)
    task = first_event(trigger)

    async def running_again() -> JobState:
        waiting = asyncio.ensure_future(task)
        status = await asyncio.to_thread(wait_for, vertex, handle, lambda status: status.state is JobState.RUNNING)
        assert not waiting.done()
        waiting.cancel()
        return status.state

    assert asyncio.run(running_again()) is JobState.RUNNING
    assert time.time() - (again.created or 0.0) > 1.0


def test_the_wait_limit_of_flex_start_is_enforced_by_the_service(
    service: RunningEmulator, make: Any, package: str, storage: Storage
) -> None:
    scheduling = {"strategy": "FLEX_START", "maxWaitDuration": "1s"}
    service.script(CREATE, "queue", seconds=60)
    body = _created_by_hand(service, package, scheduling)
    vertex = make()
    handle = JobHandle("vertex", body["name"], body["displayName"], 1, "gs://b/m/j")
    status = wait_for(vertex, handle, ended)
    assert status.state is JobState.EXPIRED
    assert status.failure is not None
    assert status.failure.cause is FailureCause.DEADLINE
    assert status.failure.message == "Vertex AI cancelled the job at its maxWaitDuration of 1 s"


def _created_by_hand(service: RunningEmulator, package: str, scheduling: dict[str, str]) -> dict[str, Any]:
    pool = {
        "machineSpec": {"machineType": "g2-standard-4", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1},
        "replicaCount": "1",
        "pythonPackageSpec": {"executorImageUri": "e", "packageUris": [package], "pythonModule": "t.task"},
    }
    job = {"displayName": "j", "jobSpec": {"workerPoolSpecs": [pool], "scheduling": scheduling}}
    request = urllib.request.Request(
        f"{service.url}/v1/projects/{service.project}/locations/{service.region}/customJobs",
        json.dumps(job).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        body: dict[str, Any] = json.loads(answer.read())
        return body


# Causes


@pytest.mark.parametrize(
    ("fault", "cause", "words"),
    [
        ({"action": "out-of-memory"}, FailureCause.TRAINER, "more memory"),
        (
            {
                "action": "fail",
                "status": "INVALID_ARGUMENT",
                "message": "The replica workerpool0-0 exited with a non-zero status of 137. "
                "Termination reason: OOMKilled.",
            },
            FailureCause.TRAINER,
            "more memory",
        ),
        (
            {
                "action": "fail",
                "status": "RESOURCE_EXHAUSTED",
                "message": "Quota 'custom_model_training_nvidia_l4_gpus' exceeded. Limit: 0.0 in region us-central1.",
            },
            FailureCause.NO_QUOTA,
            "request this quota",
        ),
    ],
)
def test_permanent_errors_are_not_retried(
    service: RunningEmulator,
    make: Any,
    package: str,
    storage: Storage,
    fault: dict[str, Any],
    cause: FailureCause,
    words: str,
) -> None:
    vertex = make()
    service.script(CREATE, **fault)
    status = wait_for(vertex, submit(vertex, package, storage), ended)
    assert status.failure is not None
    assert status.failure.cause is cause
    with pytest.raises(JobFailedError) as caught:
        Submitter(storage, vertex).next_attempt(status)
    assert words in str(caught.value)
    assert service.calls.count(CREATE) == 1


def test_a_stockout_counts_as_preemption_only_on_spot_machines(
    service: RunningEmulator, make: Any, package: str, storage: Storage
) -> None:
    vertex = make(spot=True)
    service.script(CREATE, "stockout", restarts=0, seconds=0)
    spot = wait_for(vertex, submit(vertex, package, storage), ended)
    assert spot.failure is not None
    assert spot.failure.cause is FailureCause.PREEMPTED
    assert "Resources are insufficient in region: us-central1" in spot.failure.message
    standard = make()
    service.script(CREATE, "stockout", restarts=0, seconds=0)
    handle = Submitter(storage, standard).next_attempt(spot).handle
    other = wait_for(standard, handle, ended)
    assert other.failure is not None
    assert other.failure.cause is FailureCause.QUOTA


def test_a_delayed_error_is_waited_for(service: RunningEmulator, make: Any, package: str, storage: Storage) -> None:
    vertex = make()
    message = "The replica workerpool0-0 exited with a non-zero status of 143."
    service.script(CREATE, "fail", message=message)
    service.script(CREATE, "late-error", seconds=1.5)
    handle = submit(vertex, package, storage)
    trigger = deferred(handle, queued_timeout_seconds=0.0, running_timeout_seconds=FOR_EVER)
    pending = wait_for(vertex, handle, lambda status: status.ended is not None)
    assert (pending.state, pending.failure) == (JobState.UNKNOWN, None)
    assert "has not given the error" in pending.detail
    assert asyncio.run(asyncio.wait_for(first_event(trigger), 20.0))["state"] == "FAILED"
    status = vertex.describe([handle])[0]
    assert status.failure is not None
    assert (status.failure.cause, status.failure.exit_code) == (FailureCause.PREEMPTED, 143)


def test_a_missing_error_is_waited_for_only_briefly(
    service: RunningEmulator, make: Any, package: str, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vertex_backend, "ERROR_SECONDS", 1.0)
    vertex = make()
    service.script(CREATE, "fail")
    service.script(CREATE, "late-error", seconds=3600)
    status = wait_for(vertex, submit(vertex, package, storage), ended)
    assert status.state is JobState.FAILED
    assert status.failure is not None
    assert "gave no reason" in status.failure.message


def test_a_list_of_many_jobs_distinguishes_timeouts_from_cancellations(
    service: RunningEmulator, cloud: RunningJobs, make: Any, package: str, bucket: str
) -> None:
    vertex = make(timeout_seconds=1)
    spec = TrainingSpec("t.task", (package,))
    handles = [vertex.submit(Submission(f"{n:040x}", f"j_{n}", 1, f"{bucket}/m/j{n}", spec)) for n in range(4)]
    wait_for(vertex, handles[0], lambda status: status.state is JobState.RUNNING)
    vertex.describe(handles)
    vertex.cancel(handles[3])
    wait_for(vertex, handles[3], ended)
    time.sleep(1.1)  # the jobs in memory do not time out by themselves
    for handle in handles[:3]:
        record = next(one for one in service.server.engine.store.all() if handle.name.endswith(one.id))
        assert record.handle is not None
        cloud.end(record.handle.name, JobState.FAILED, FailureCause.DEADLINE)
    states = [status.state for status in vertex.describe(handles)]
    assert states == [JobState.EXPIRED] * 3 + [JobState.CANCELLED]


# A quota whose limit is 0


def test_a_quota_with_limit_0_is_not_retried(
    service: RunningEmulator, make: Any, package: str, storage: Storage
) -> None:
    message = "Quota 'custom_model_training_preemptible_nvidia_l4_gpus' exceeded. Limit: 0.0 in region us-central1."
    service.script(CREATE, "status", status="RESOURCE_EXHAUSTED", message=message)
    with pytest.raises(NoQuotaError, match="preemptible_nvidia_l4_gpus") as caught:
        submit(make(), package, storage)
    assert not caught.value.retryable
    assert service.calls.count(CREATE) == 1


# Restarts by the service


def test_restarts_by_the_service_count_as_attempts_and_in_the_cost(
    service: RunningEmulator, make: Any, package: str, storage: Storage
) -> None:
    vertex = make(spot=True)
    service.script(CREATE, "stockout", restarts=2, seconds=0.6)
    handle = submit(vertex, package, storage)
    event = asyncio.run(asyncio.wait_for(first_event(deferred(handle)), 30.0))
    assert event["state"] == "FAILED"
    record = Submitter(storage, vertex).record(JobDir(handle.job_dir))
    assert record.service_restarts == 2
    with pytest.raises(
        AirflowFailException, match=r"attempt 1 of 3.* restarted the job 2 times; such restarts count as attempts"
    ):
        sensor(handle).execute_complete(context(), event)
    assert service.calls.count(CREATE) == 1
    usage = job_usage(vertex, record, JobDir(handle.job_dir))
    assert (usage["attempts"], usage["service_restarts"]) == (1, 2)
    assert usage["seconds"] >= 1.0, "the time must be counted from the first start to the end"
    # If more attempts are allowed, another one follows.
    submitted = Submitter(storage, vertex, max_attempts=4).next_attempt(vertex.describe([handle])[0])
    assert submitted.handle.attempt == 2


def test_restarts_are_counted_without_a_triggerer(
    service: RunningEmulator, make: Any, package: str, storage: Storage
) -> None:
    vertex = make()
    service.script(CREATE, "restart", restarts=2, seconds=1.0)
    handle = submit(vertex, package, storage)
    seen = 0
    until = time.monotonic() + 60.0
    while seen < 2 and time.monotonic() < until:
        # A new process for each poll, as with mode="reschedule".
        assert not sensor(handle, deferrable=False, mode="reschedule").poke(context())
        seen = Submitter(storage, vertex).record(JobDir(handle.job_dir)).service_restarts
    wait_for(vertex, handle, lambda status: status.state is JobState.RUNNING)
    sensor(handle, deferrable=False, mode="reschedule").poke(context())
    record = Submitter(storage, vertex).record(JobDir(handle.job_dir))
    assert (record.service_restarts, record.restarting) == (2, False)
