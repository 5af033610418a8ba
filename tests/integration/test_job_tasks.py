"""Tests submit and wait as Airflow tasks, with a real bucket and a backend whose jobs end when the test says so."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from airflow.sdk.observability import stats

from mlengine import backends, connections
from mlengine.backends import LogLine, LogPage
from mlengine.core.errors import (
    BackendUnavailableError,
    JobFileError,
    ObjectMissingError,
    PackageError,
)
from mlengine.core.job import FailureCause, JobHandle, JobState, make_job_id
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.core.xcoms import JobXCom
from mlengine.jobs.cancellation import record_cancellation
from mlengine.jobs.log_forwarding import RESUMED
from mlengine.jobs.progress import LogCursor, read_cursor, read_progress, write_cursor
from mlengine.jobs.submission import Submitter
from mlengine.operators.prepare import PrepareJobDirOperator
from mlengine.operators.run_identity import job_key
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.sensors import training_job as sensors
from mlengine.sensors.training_job import TrainingJobSensor
from mlengine.storage.client import Storage
from mlengine.triggers import training_job
from mlengine.triggers.training_job import TrainingJobTrigger
from mlengine.web import actions
from tests.support.local_jobs import put, sdist
from tests.support.scripted_backends import ScriptedBackend

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def backend(
    monkeypatch: pytest.MonkeyPatch, storage: Storage, scripted_backend: ScriptedBackend
) -> Iterator[ScriptedBackend]:
    """Replaces the backend: all tests in this module must pass with every backend."""
    backends.register(scripted_backend.name, lambda **_: scripted_backend)
    monkeypatch.setattr(training_job, "EARLIEST_EVENT_SECONDS", 0.0)
    connections.forget_connections()
    assert storage
    yield scripted_backend
    connections.forget_connections()


def context(task_id: str, *, run_id: str = "r", try_number: int = 1, max_tries: int = 2) -> Any:
    ti = SimpleNamespace(
        dag_id="dag", run_id=run_id, task_id=task_id, map_index=-1, try_number=try_number, max_tries=max_tries
    )
    return {"ti": ti}


def submit(backend: ScriptedBackend, bucket: str, **ti: Any) -> JobXCom:
    prepare = PrepareJobDirOperator(task_id="prepare", model="m", job_id_hint="h", bucket=bucket, gcp_conn_id=None)
    job = prepare.execute(context("prepare"))
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job=job,
        job_file={"trainingInput": {"pythonModule": "trainer.task"}},
        backend=backend.name,
        gcp_conn_id=None,
    )
    return operator.execute(context("submit", **ti))


def sensor(job: JobXCom, **more: Any) -> TrainingJobSensor:
    more = {"deferrable": True, "mode": "poke", "poll_interval_seconds": 0.01, **more}
    return TrainingJobSensor(task_id="wait", job=job, gcp_conn_id=None, **more)


def deferred(job: JobXCom, **more: Any) -> TrainingJobTrigger:
    with pytest.raises(TaskDeferred) as caught:
        sensor(job, **more).execute(context("wait"))
    trigger = caught.value.trigger
    assert isinstance(trigger, TrainingJobTrigger)
    path, arguments = trigger.serialize()
    assert path.endswith("TrainingJobTrigger")
    return TrainingJobTrigger(**arguments, a_word_of_tomorrow=1)


async def first_event(trigger: TrainingJobTrigger) -> dict[str, Any]:
    async for event in trigger.run():
        return dict(event.payload)
    raise AssertionError("a trigger without an event")


def test_a_retry_reattaches_and_a_clear_submits_a_new_job(bucket: str, backend: ScriptedBackend) -> None:
    first = submit(backend, bucket)
    again = submit(backend, bucket, try_number=2)
    assert (first["decision"], again["decision"]) == ("fresh_submit", "reattached")
    assert again["name"] == first["name"]
    cleared = submit(backend, bucket, try_number=2, max_tries=3)
    assert cleared["decision"] == "fresh_submit"
    assert cleared["job_dir"] != first["job_dir"]
    assert [job.handle.name for job in backend.live] == [cleared["name"]]


@pytest.mark.parametrize(
    ("module", "more", "refused"),
    [
        ("tiny.task", {}, False),
        ("tiny.tsak", {}, True),
        ("tiny.tsak", {"masterConfig": {"imageUri": "example/mine:1"}}, False),
    ],
)
def test_a_module_named_only_in_the_job_file_is_checked_before_the_submission(
    bucket: str, storage: Storage, backend: ScriptedBackend, module: str, more: dict[str, Any], refused: bool
) -> None:
    """Jobs with an image are not checked, as the image may contain the module.

    A job that already runs is not affected.
    """
    uri = put(storage, bucket, sdist("print('trained')"))
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job={"model": "m", "job_id": "j", "job_dir": f"{bucket}/m/j"},
        job_file={"trainingInput": {"pythonModule": module, "packageUris": [uri], **more}},
        backend=backend.name,
        gcp_conn_id=None,
    )
    if refused:
        with pytest.raises(PackageError, match=r"no module tiny\.tsak in .*\n.*tiny\.task"):
            operator.execute(context("submit"))
        assert not storage.exists(f"{bucket}/m/j/job.json")
    else:
        assert operator.execute(context("submit"))["decision"] == "fresh_submit"
        storage.delete(uri)
        assert operator.execute(context("submit", try_number=2))["decision"] == "reattached"
    assert len(backend.live) == (0 if refused else 1)


def test_the_xcom_of_a_submission_is_small_and_plain(bucket: str, backend: ScriptedBackend) -> None:
    job = submit(backend, bucket)
    assert set(job) == {"backend", "name", "job_id", "attempt", "job_dir", "decision"}
    assert all(isinstance(value, str | int) for value in job.values())


def test_a_bad_job_file_is_refused_before_the_submission(bucket: str, backend: ScriptedBackend) -> None:
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job={"model": "m", "job_id": "j", "job_dir": f"{bucket}/m/j"},
        job_file={"trainingInput": {"pythonModule": "trainer.task", "scaleTier": "STANDART_1"}},
        backend=backend.name,
        gcp_conn_id=None,
    )
    with pytest.raises(JobFileError, match="STANDARD_1"):
        operator.execute(context("submit"))
    assert backend.jobs == []


def test_a_deferred_wait_ends_with_the_job(bucket: str, backend: ScriptedBackend) -> None:
    job = submit(backend, bucket)
    trigger = deferred(job)
    backend.end(job["name"], JobState.SUCCEEDED)
    event = asyncio.run(first_event(trigger))
    assert event == {"job_id": job["job_id"], "event": "ended", "state": "SUCCEEDED"}
    result = sensor(job).execute_complete(context("wait"), event)
    assert (result["state"], result["job_dir"]) == ("SUCCEEDED", job["job_dir"])


def test_a_wait_for_a_finished_job_does_not_defer(bucket: str, backend: ScriptedBackend) -> None:
    job = submit(backend, bucket)
    backend.end(job["name"], JobState.SUCCEEDED)
    assert sensor(job).execute(context("wait"))["state"] == "SUCCEEDED"


def test_a_lost_job_is_restarted_as_the_next_attempt(bucket: str, backend: ScriptedBackend) -> None:
    job = submit(backend, bucket)
    backend.end(job["name"], JobState.FAILED, FailureCause.PREEMPTED)
    with pytest.raises(TaskDeferred) as caught:
        sensor(job).execute_complete(context("wait"), {"event": "ended"})
    assert isinstance(caught.value.trigger, TrainingJobTrigger)
    handle = JobHandle.from_json(caught.value.trigger.handle)
    assert (handle.attempt, handle.job_dir) == (2, job["job_dir"])
    backend.end(handle.name, JobState.SUCCEEDED)
    result = sensor(job).execute_complete(context("wait"), {"event": "ended"})
    assert result["attempt"] == 2, "the XCom names attempt 1; the current attempt is read from the record"


def test_a_trainer_error_fails_the_task_without_retries(bucket: str, backend: ScriptedBackend) -> None:
    job = submit(backend, bucket)
    backend.end(job["name"], JobState.FAILED, FailureCause.TRAINER)
    with pytest.raises(AirflowFailException, match="ended by trainer"):
        sensor(job).execute_complete(context("wait"), {"event": "ended"})
    assert len(backend.jobs) == 1


LIMITS: dict[str, dict[str, Any]] = {
    "queued_timeout_seconds": {"queued_timeout_seconds": 0.0, "running_timeout_seconds": 100.0},
    "running_timeout_seconds": {"queued_timeout_seconds": 0.0, "running_timeout_seconds": 0.0},
    "execution_timeout": {"execution_timeout": timedelta(seconds=0.2)},
    "timeout": {"timeout": 0.2},
}


@pytest.mark.parametrize("limit", LIMITS)
def test_the_trigger_cancels_a_job_that_exceeds_a_limit(bucket: str, backend: ScriptedBackend, limit: str) -> None:
    """While a DAG is paused, no worker resumes the task: only the trigger can act."""
    job = submit(backend, bucket)
    backend.jobs[0].state = JobState.QUEUED if limit == "queued_timeout_seconds" else JobState.RUNNING
    event = asyncio.run(first_event(deferred(job, **LIMITS[limit])))
    assert event == {"job_id": job["job_id"], "event": "deadline", "limit": limit}
    assert [one.state for one in backend.jobs] == [JobState.CANCELLED]


@pytest.mark.parametrize("limit", LIMITS)
def test_the_task_of_a_cancelled_job_fails_without_another_attempt(
    bucket: str, backend: ScriptedBackend, limit: str
) -> None:
    job = submit(backend, bucket)
    backend.jobs[0].state = JobState.QUEUED if limit == "queued_timeout_seconds" else JobState.RUNNING
    event = asyncio.run(first_event(deferred(job, **LIMITS[limit])))
    kind = (
        AirflowFailException if limit in {"queued_timeout_seconds", "running_timeout_seconds"} else AirflowSensorTimeout
    )
    with pytest.raises(kind, match=rf"was cancelled: it exceeded {limit}\n.*: raise .*{limit}, (or request|reduce)"):
        sensor(job, **LIMITS[limit]).execute_complete(context("wait"), event)
    assert len(backend.jobs) == 1
    with pytest.raises(TaskDeferred):
        sensor(job).execute(context("wait", try_number=2))
    assert [one.handle.attempt for one in backend.live] == [2], "clearing the wait starts another attempt"


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize(
    "goes_on",
    [
        lambda wait: wait.execute_complete(context("wait"), {"event": "ended"}),
        lambda wait: wait.execute(context("wait", try_number=2)),
        lambda wait: wait.execute(context("wait", try_number=3, max_tries=3)),
    ],
    ids=["the triggerer restarts", "Airflow retries the task", "Airflow retries the task after a clear"],
)
def test_an_interruption_after_a_limit_starts_no_attempt(
    bucket: str, backend: ScriptedBackend, limit: str, goes_on: Callable[[TrainingJobSensor], object]
) -> None:
    """The interruption occurs between the job's cancellation and the task's end.

    The task fails as without an interruption.
    """
    job = submit(backend, bucket)
    backend.jobs[0].state = JobState.QUEUED if limit == "queued_timeout_seconds" else JobState.RUNNING
    asyncio.run(first_event(deferred(job, **LIMITS[limit])))
    again = sensor(job, retries=2, **LIMITS[limit])
    with pytest.raises((AirflowFailException, AirflowSensorTimeout), match=f"it exceeded {limit}"):
        goes_on(again)
    assert len(backend.jobs) == 1
    with pytest.raises(TaskDeferred):
        again.execute(context("wait", try_number=3, max_tries=4))
    assert [one.handle.attempt for one in backend.live] == [2], "clearing the wait starts another attempt"


@pytest.mark.parametrize("limit", ["queued_timeout_seconds", "running_timeout_seconds"])
def test_an_interruption_after_a_limit_starts_no_attempt_without_a_triggerer(
    bucket: str, backend: ScriptedBackend, limit: str
) -> None:
    job = submit(backend, bucket)
    backend.jobs[0].state = JobState.QUEUED if limit == "queued_timeout_seconds" else JobState.RUNNING
    more = {"deferrable": False, "retries": 2}
    with pytest.raises(AirflowFailException, match=f"it exceeded {limit}"):
        sensor(job, **more, **LIMITS[limit]).poke(context("wait"))
    with pytest.raises(AirflowFailException, match=f"it exceeded {limit}"):
        sensor(job, **more, **LIMITS[limit]).execute(context("wait", try_number=2))
    assert [one.state for one in backend.jobs] == [JobState.CANCELLED]


def test_a_limit_is_reported_although_the_response_to_the_cancellation_was_lost(
    bucket: str, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(backend, bucket)
    cancel = backend.cancel
    lost: list[JobHandle] = []

    def lose_first(handle: JobHandle) -> None:
        cancel(handle)
        if not lost:
            lost.append(handle)
            raise BackendUnavailableError("no response", hint="")

    monkeypatch.setattr(backend, "cancel", lose_first)
    limits = LIMITS["queued_timeout_seconds"]
    event = asyncio.run(first_event(deferred(job, **limits)))
    with pytest.raises(AirflowFailException, match="it exceeded queued_timeout_seconds"):
        sensor(job, **limits).execute_complete(context("wait"), event)
    assert lost
    assert len(backend.jobs) == 1


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED])
def test_a_job_that_ends_at_its_deadline_keeps_its_result(
    bucket: str, backend: ScriptedBackend, state: JobState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job ends between the trigger's last poll and its deadline."""
    job = submit(backend, bucket)
    backend.jobs[0].state = JobState.RUNNING
    trigger = deferred(job, running_timeout_seconds=0.0, queued_timeout_seconds=0.5)
    trigger.poll_interval_seconds = 600.0
    once_more = TrainingJobTrigger._cancel_if_late

    def just_ended(self: TrainingJobTrigger, handle: JobHandle) -> Any:
        backend.end(job["name"], state, FailureCause.TRAINER if state is JobState.FAILED else None)
        return once_more(self, handle)

    monkeypatch.setattr(TrainingJobTrigger, "_cancel_if_late", just_ended)
    event = asyncio.run(asyncio.wait_for(first_event(trigger), 30.0))
    assert event == {"job_id": job["job_id"], "event": "ended", "state": state.value}
    assert [one.state for one in backend.jobs] == [state]


def test_a_job_that_starts_at_its_queue_deadline_keeps_running(
    bucket: str, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(backend, bucket)
    trigger = deferred(job, queued_timeout_seconds=0.3, running_timeout_seconds=1.0)
    trigger.poll_interval_seconds = 600.0
    once_more = TrainingJobTrigger._cancel_if_late
    limits: list[str | None] = []

    def started(self: TrainingJobTrigger, handle: JobHandle) -> Any:
        if not limits:
            backend.jobs[0].state = JobState.RUNNING
        status, limit = once_more(self, handle)
        limits.append(limit)
        return status, limit

    monkeypatch.setattr(TrainingJobTrigger, "_cancel_if_late", started)
    event = asyncio.run(asyncio.wait_for(first_event(trigger), 30.0))
    assert limits == [None, "running_timeout_seconds"]
    assert event["limit"] == "running_timeout_seconds"


def test_a_failed_cancellation_is_retried_before_the_deadline_is_reported(
    bucket: str, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(backend, bucket)
    trigger = deferred(job, queued_timeout_seconds=0.0, running_timeout_seconds=0.2)
    again = backend.cancel
    refusals = [BackendUnavailableError("come back later")]

    def cancel(handle: JobHandle) -> None:
        if refusals:
            raise refusals.pop()
        again(handle)

    monkeypatch.setattr(backend, "cancel", cancel)
    assert asyncio.run(first_event(trigger))["event"] == "deadline"
    assert refusals == []
    assert backend.live == []


def test_a_deadline_is_reported_even_if_the_service_is_unavailable(
    bucket: str, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_job, "CANCEL_RETRY_SECONDS", 0.0)
    job = submit(backend, bucket)
    trigger = deferred(job, queued_timeout_seconds=0.0, running_timeout_seconds=0.5)
    backend.refuse = 10_000
    event = asyncio.run(first_event(trigger))
    assert event["event"] == "deadline"
    backend.refuse = 0
    with pytest.raises(AirflowFailException, match="it exceeded running_timeout_seconds"):
        sensor(job).execute_complete(context("wait"), event)
    assert backend.live == [], "the worker cancels what the trigger could not"


def test_a_trigger_serialized_by_an_older_version_still_runs(bucket: str, backend: ScriptedBackend) -> None:
    job = submit(backend, bucket)
    _, arguments = deferred(job).serialize()
    older = {name: arguments[name] for name in ("handle", "gcp_conn_id", "backend_options", "poll_interval_seconds")}
    trigger = TrainingJobTrigger(**older, queued_until=float("inf"), running_until=float("inf"), not_before=0.0)
    backend.end(job["name"], JobState.SUCCEEDED)
    assert asyncio.run(first_event(trigger))["event"] == "ended"


def test_killing_a_deferred_wait_cancels_the_job(bucket: str, backend: ScriptedBackend) -> None:
    trigger = deferred(submit(backend, bucket))
    asyncio.run(trigger.on_kill())
    assert backend.live == []


def test_a_triggerers_restart_leaves_the_job_alone(bucket: str, backend: ScriptedBackend) -> None:
    trigger = deferred(submit(backend, bucket))

    async def restart() -> None:
        run = asyncio.create_task(first_event(trigger))
        await asyncio.sleep(0.1)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await trigger.cleanup()

    asyncio.run(restart())
    assert len(backend.live) == 1


@pytest.mark.parametrize(
    ("error", "try_number", "live"),
    [
        # Airflow does not retry a sensor after its timeout, even if it has tries left.
        ("Trigger timeout", 1, 0),
        ("Trigger timeout", 3, 0),
        ("Trigger failure", 1, 1),
        ("Trigger failure", 3, 0),
    ],
)
def test_a_failed_deferral_cancels_the_job_if_the_task_is_not_retried(
    bucket: str, backend: ScriptedBackend, error: str, try_number: int, live: int
) -> None:
    job = submit(backend, bucket)
    with pytest.raises(AirflowException, match=error):
        sensor(job).resume_execution("__fail__", {"error": error}, context("wait", try_number=try_number))
    assert len(backend.live) == live


def _first_leg(wait: TrainingJobSensor) -> None:
    wait.execute(context("wait"))


def _resumed(wait: TrainingJobSensor) -> None:
    wait.resume_execution("execute_complete", {"event": {"event": "ended"}}, context("wait"))


def _poked(wait: TrainingJobSensor) -> None:
    wait.deferrable, wait.poke_interval = False, 0.01
    wait.execute(context("wait"))


ENDINGS: dict[str, tuple[JobState, FailureCause | None]] = {
    "trainer": (JobState.FAILED, FailureCause.TRAINER),
    "last attempt": (JobState.FAILED, FailureCause.PREEMPTED),
    "service's limit": (JobState.EXPIRED, FailureCause.DEADLINE),
}


@pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("noticed", [_first_leg, _resumed, _poked])
def test_soft_fail_skips_wherever_the_failure_is_noticed(
    bucket: str, backend: ScriptedBackend, noticed: Callable[[TrainingJobSensor], None], ending: str, option: str
) -> None:
    job = submit(backend, bucket)
    backend.end(job["name"], *ENDINGS[ending])
    soft = sensor(job, max_attempts=1, **{option: True})
    with pytest.raises(AirflowSkipException):
        noticed(soft)
    hard = sensor(job, max_attempts=1)
    with pytest.raises(AirflowFailException):
        noticed(hard)


@pytest.mark.parametrize("limit", LIMITS)
def test_soft_fail_skips_at_a_deadline_and_the_job_is_cancelled(
    bucket: str, backend: ScriptedBackend, limit: str
) -> None:
    job = submit(backend, bucket)
    late = {"event": {"event": "deadline", "limit": limit}}
    with pytest.raises(AirflowSkipException):
        sensor(job, soft_fail=True).resume_execution("execute_complete", late, context("wait"))
    assert backend.live == []


def test_soft_fail_does_not_hide_errors_that_can_be_fixed(
    bucket: str, backend: ScriptedBackend, storage: Storage
) -> None:
    job = submit(backend, bucket)
    storage.delete(JobDir(job["job_dir"]).claim)
    for noticed in (_first_leg, _resumed, _poked):
        with pytest.raises(ObjectMissingError):
            noticed(sensor(job, soft_fail=True))


def test_a_skip_for_soft_fail_cancels_the_job(bucket: str, backend: ScriptedBackend) -> None:
    job = submit(backend, bucket)
    with pytest.raises(AirflowSkipException):
        sensor(job, soft_fail=True).resume_execution("__fail__", {"error": "Trigger timeout"}, context("wait"))
    assert backend.live == []


@pytest.mark.parametrize("noticed", [_first_leg, _resumed, _poked])
@pytest.mark.parametrize(
    ("option", "error"), [("never_fail", RuntimeError("unexpected")), ("soft_fail", AirflowTaskTimeout("too long"))]
)
def test_a_skip_with_tries_left_cancels_the_job(
    bucket: str,
    backend: ScriptedBackend,
    monkeypatch: pytest.MonkeyPatch,
    noticed: Callable[[TrainingJobSensor], None],
    option: str,
    error: BaseException,
) -> None:
    """Airflow does not retry a skipped task."""
    job = submit(backend, bucket)

    def poll(*_: Any) -> None:
        raise error

    monkeypatch.setattr(TrainingJobSensor, "_poll", poll)
    with pytest.raises(AirflowSkipException):
        noticed(sensor(job, **{option: True}))
    assert backend.live == []


@pytest.mark.parametrize(
    ("limits", "name"),
    [({"execution_timeout": timedelta(seconds=7)}, "execution_until"), ({"timeout": 7.0}, "wait_until")],
)
def test_the_trigger_enforces_airflows_limits_before_airflow_does(
    bucket: str, limits: dict[str, Any], name: str, backend: ScriptedBackend
) -> None:
    with pytest.raises(TaskDeferred) as caught:
        sensor(submit(backend, bucket), **limits).execute(context("wait"))
    _, arguments = caught.value.trigger.serialize()
    assert arguments[name] == pytest.approx(time.time() + 7.0, abs=5.0)
    assert caught.value.timeout is not None
    assert caught.value.timeout.total_seconds() == pytest.approx(607.0, abs=5.0)


def test_a_serialized_trigger_is_valid_json(bucket: str, backend: ScriptedBackend) -> None:
    """Airflow's API would convert infinity to null."""
    limits = {"queued_timeout_seconds": float("inf"), "running_timeout_seconds": float("inf")}
    _, arguments = deferred(submit(backend, bucket), **limits).serialize()
    json.dumps(arguments, allow_nan=False)
    assert arguments["running_until"] is None
    assert arguments["wait_until"] is not None, "without a limit of mlengine, Airflow's default applies"


def test_a_job_that_ends_as_its_deadline_passes_succeeds(bucket: str, backend: ScriptedBackend) -> None:
    job = submit(backend, bucket)
    backend.end(job["name"], JobState.SUCCEEDED)
    late = {"event": "deadline", "limit": "running_timeout_seconds"}
    assert sensor(job).execute_complete(context("wait"), late)["state"] == "SUCCEEDED"


def by_command(storage: Storage, backend: ScriptedBackend, job: JobXCom) -> str:
    """Cancel as ``mlengine jobs cancel`` and Google's console do, and return the task's message about it."""
    backend.cancel(JobHandle.from_json(job))
    return "it was cancelled outside this task"


def on_the_page(storage: Storage, backend: ScriptedBackend, job: JobXCom) -> str:
    actions.cancel(storage, backend, JobDir(job["job_dir"]), by="ann", why="too dear")
    return "it was cancelled by ann: too dear"


WAITS = {
    "first poll": lambda job: sensor(job, retries=2).execute(context("wait")),
    "first poke": lambda job: sensor(job, retries=2, deferrable=False).execute(context("wait")),
    "later poll": lambda job: sensor(job, retries=2).execute_complete(context("wait"), {"event": "ended"}),
    "retry by Airflow": lambda job: sensor(job, retries=2).execute(context("wait", try_number=2)),
    "retry after a clear": lambda job: sensor(job, retries=2).execute(context("wait", try_number=3, max_tries=3)),
}


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("cancel", [by_command, on_the_page])
def test_a_job_cancelled_by_a_user_is_restarted_only_after_a_clear(
    bucket: str,
    storage: Storage,
    backend: ScriptedBackend,
    cancel: Callable[[Storage, ScriptedBackend, JobXCom], str],
    wait: str,
) -> None:
    job = submit(backend, bucket)
    message = cancel(storage, backend, job)
    with pytest.raises(AirflowFailException, match=message):
        WAITS[wait](job)
    with pytest.raises(AirflowFailException, match=message):
        submit(backend, bucket, try_number=2)
    assert len(backend.jobs) == 1
    with pytest.raises(TaskDeferred):
        sensor(job, retries=2).execute(context("wait", try_number=2, max_tries=3))
    assert [live.handle.attempt for live in backend.live] == [2]


def test_a_job_cancelled_by_a_user_while_its_machine_was_lost_is_not_restarted(
    bucket: str, storage: Storage, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancellation was recorded, but the job had ended before it took effect."""
    job = submit(backend, bucket)
    with monkeypatch.context() as patch:
        patch.setattr(backend, "cancel", lambda _: None)
        message = on_the_page(storage, backend, job)
    backend.end(job["name"], JobState.FAILED, FailureCause.LOST)
    backend.jobs[0].ended = time.time() - 3600
    with pytest.raises(AirflowFailException, match=message):
        sensor(job, retries=2).execute_complete(context("wait"), {"event": "ended"})
    with pytest.raises(AirflowFailException, match=message):
        submit(backend, bucket, try_number=2)
    assert len(backend.jobs) == 1


def test_a_job_cancelled_by_its_task_continues_when_the_task_is_retried(bucket: str, backend: ScriptedBackend) -> None:
    job = submit(backend, bucket)
    asyncio.run(deferred(job).on_kill())
    # The new try polls before the cancellation takes effect, and again afterwards.
    with pytest.raises(TaskDeferred):
        sensor(job).execute_complete(context("wait", try_number=2), {"event": "ended"})
    assert [live.handle.attempt for live in backend.live] == [2]


def test_a_task_that_continues_after_its_kill_submits_no_job(bucket: str, backend: ScriptedBackend) -> None:
    job = submit(backend, bucket)
    wait = sensor(job, deferrable=False)
    wait.on_kill()
    with pytest.raises(AirflowFailException, match="was killed"):
        wait.poke(context("wait"))
    assert len(backend.jobs) == 1


@pytest.mark.parametrize("wait", [60.0, None])
def test_an_unreadable_log_does_not_delay_a_sensor_without_a_triggerer(
    bucket: str, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, wait: float | None
) -> None:
    job = submit(backend, bucket)

    def logs(handle: JobHandle, cursor: Any, limit: int = 1000) -> LogPage:
        if wait is None:
            raise BackendUnavailableError("503")
        return LogPage((), cursor, wait=wait)

    monkeypatch.setattr(backend, "logs", logs)
    began = time.monotonic()
    assert not sensor(job, deferrable=False).poke(context("wait")).is_done
    backend.end(job["name"], JobState.SUCCEEDED)
    assert sensor(job, deferrable=False).poke(context("wait")).is_done
    assert time.monotonic() - began < 40.0, "the wait must not take the full 60 s"


def test_a_worker_says_that_lines_of_an_interrupted_trigger_may_repeat(
    bucket: str, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, logged = submit(backend, bucket), []
    handle = JobHandle(job["backend"], job["job_id"], job["name"], job["attempt"], job["job_dir"])
    write_cursor(Storage(), handle, LogCursor(handle.attempt, {"at": 1}, JobState.RUNNING.value, open=True))
    wait = sensor(job, deferrable=False)
    monkeypatch.setattr(wait.log, "info", lambda message, *words: logged.append(message % words))
    monkeypatch.setattr(backend, "logs", lambda handle, cursor, limit=1000: LogPage((), cursor))
    for _ in range(2):
        assert not wait.poke(context("wait")).is_done
    assert [line for line in logged if "may repeat" in line] == [f"       wait | {RESUMED}"]
    assert read_cursor(Storage(), handle).open is False


@pytest.mark.parametrize("failures", [1, 10**9])
def test_reading_the_last_log_lines_is_retried_without_a_triggerer(
    bucket: str, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    job, calls, logged = submit(backend, bucket), iter(range(10**10)), []

    def logs(handle: JobHandle, cursor: dict[str, Any], limit: int = 1000) -> LogPage:
        if next(calls) < failures:
            raise BackendUnavailableError("503")
        return LogPage(() if cursor else (LogLine("chief-0", "the last line"),), {"at": 1})

    monkeypatch.setattr(backend, "logs", logs)
    monkeypatch.setattr(sensors, "LAST_LINES_SECONDS", 3.0)
    monkeypatch.setattr(sensors, "_READ_AGAIN_SECONDS", 0.1)
    backend.end(job["name"], JobState.SUCCEEDED)
    wait = sensor(job, deferrable=False)
    for level in ("info", "warning"):
        monkeypatch.setattr(wait.log, level, lambda message, *words: logged.append(message % words))
    assert wait.poke(context("wait")).is_done
    found = [line for line in logged if "the last line" in line or "could not be read yet" in line]
    assert found == (
        ["    chief-0 | the last line"]
        if failures == 1
        else [f"The last lines could not be read yet; `mlengine jobs logs {job['job_id']}` prints them"]
    )


def test_a_job_submitted_during_the_kill_of_its_task_is_cancelled(
    bucket: str, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job={"model": "m", "job_id": "j", "job_dir": f"{bucket}/m/j"},
        job_file={"trainingInput": {"pythonModule": "trainer.task"}},
        backend=backend.name,
        gcp_conn_id=None,
    )
    original = backend.submit

    def killed_just_before(*arguments: Any) -> JobHandle:
        operator.on_kill()
        return original(*arguments)

    monkeypatch.setattr(backend, "submit", killed_just_before)
    with pytest.raises(AirflowFailException, match="killed while"):
        operator.execute(context("submit"))
    assert len(backend.jobs) == 1
    assert backend.live == []


def test_clearing_prepare_and_submit_cancels_the_previous_job(bucket: str, backend: ScriptedBackend) -> None:
    """The cleared run's job dir has another name; the previous job is found by its key."""
    first = submit(backend, bucket)

    def cleared(max_tries: int) -> JobXCom:
        prepare = PrepareJobDirOperator(task_id="prepare", model="m", job_id_hint="h", bucket=bucket, gcp_conn_id=None)
        job = prepare.execute(context("prepare", try_number=2, max_tries=max_tries))
        operator = SubmitTrainingJobOperator(
            task_id="submit",
            job=job,
            job_file={"trainingInput": {"pythonModule": "trainer.task"}},
            backend=backend.name,
            gcp_conn_id=None,
        )
        return operator.execute(context("submit", try_number=2, max_tries=max_tries))

    second = cleared(3)
    assert second["job_dir"] != first["job_dir"]
    assert [job.handle.name for job in backend.live] == [second["name"]]


def test_the_next_attempt_after_a_machine_failure_is_delayed(
    bucket: str, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(backend, bucket)
    backend.end(job["name"], JobState.FAILED, FailureCause.QUOTA)
    backend.jobs[0].ended = time.time()
    with pytest.raises(TaskDeferred) as caught:
        sensor(job).execute_complete(context("wait"), {"event": "ended"})
    assert len(backend.jobs) == 1, "the next attempt must not start yet"
    trigger = caught.value.trigger
    assert isinstance(trigger, TrainingJobTrigger)
    assert 5 < trigger.not_before - time.time() < 11
    trigger.not_before = time.time() + 0.1
    assert asyncio.run(first_event(trigger))["event"] == "due"
    assert not sensor(job, deferrable=False).poke(context("wait")), (
        "the next attempt must not start yet without a triggerer either"
    )
    assert len(backend.jobs) == 1
    backend.jobs[0].ended = time.time() - 11
    with pytest.raises(TaskDeferred):
        sensor(job).execute_complete(context("wait"), {"event": "due"})
    assert [live.handle.attempt for live in backend.live] == [2]


def test_a_cancellation_while_the_next_attempt_begins_is_not_lost(
    bucket: str, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(backend, bucket)
    backend.end(job["name"], JobState.FAILED, FailureCause.PREEMPTED)

    def cancelled_later(*_: object) -> str:
        record_cancellation(Storage(), backend.jobs[0].handle, by="ann", why="wrong data")
        return ""

    monkeypatch.setattr("mlengine.sensors.training_job.cancelled_outside", cancelled_later)
    with pytest.raises(AirflowFailException, match="it was cancelled by ann: wrong data"):
        sensor(job).execute_complete(context("wait"), {"event": "ended"})
    assert len(backend.jobs) == 1
    with pytest.raises(TaskDeferred):  # a person who clears the task wants it to run
        sensor(job).execute(context("wait", try_number=2, max_tries=1))
    assert len(backend.jobs) == 2


def test_each_decision_is_counted_as_a_metric_of_that_name(
    bucket: str, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(stats, "incr", lambda name, tags: counted.append(f"{name} {tags['task_id']}"))
    job = submit(backend, bucket)
    submit(backend, bucket, try_number=2)
    backend.end(job["name"], JobState.FAILED, FailureCause.LOST)
    with pytest.raises(TaskDeferred):
        sensor(job).execute_complete(context("wait"), {"event": "ended"})
    assert counted == [
        "mlengine.fresh_submit submit",
        "mlengine.reattached submit",
        "mlengine.restarted_from_checkpoint wait",
    ]


def test_killing_a_wait_in_the_worker_cancels_the_job(bucket: str, backend: ScriptedBackend) -> None:
    job = submit(backend, bucket)
    sensor(job).on_kill()
    assert backend.live == []


def test_a_submission_killed_before_its_response_is_cancelled_by_its_key(bucket: str, backend: ScriptedBackend) -> None:
    backend.lose_answers = 1
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job={"model": "m", "job_id": "j", "job_dir": f"{bucket}/m/j"},
        job_file={"trainingInput": {"pythonModule": "trainer.task"}},
        backend=backend.name,
        gcp_conn_id=None,
    )
    with pytest.raises(BackendUnavailableError):
        operator.execute(context("submit"))
    assert len(backend.live) == 1, "the task has tries left, and will reattach to the job"
    operator.on_kill()
    assert backend.live == []


def test_a_wait_without_a_triggerer_logs_each_line_once(
    bucket: str, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(backend, bucket)
    texts = ["one", "two", "three"]

    def logs(handle: JobHandle, cursor: dict[str, Any], limit: int = 1000) -> LogPage:
        start = int(cursor.get("at", 0))
        lines = tuple(LogLine("worker-1", text) for text in texts[start : start + 1])
        return LogPage(lines, {"at": start + len(lines)}, more=start + len(lines) < len(texts))

    monkeypatch.setattr(backend, "logs", logs)
    logged: list[str] = []
    for _ in range(2):  # two pokes, each with a new sensor as in a new process
        wait = sensor(job, deferrable=False, mode="reschedule")
        monkeypatch.setattr(wait.log, "info", lambda message, *words: logged.append(message % words))
        assert not wait.poke(context("wait"))
    assert [line.split("| ")[1] for line in logged if "worker-1" in line] == texts
    backend.end(job["name"], JobState.SUCCEEDED)
    done = sensor(job, deferrable=False).poke(context("wait"))
    assert done.is_done
    assert (done.xcom_value or {})["state"] == "SUCCEEDED"


def test_a_wait_without_a_triggerer_enforces_the_deadline(bucket: str, backend: ScriptedBackend) -> None:
    job = submit(backend, bucket)
    wait = sensor(job, deferrable=False, queued_timeout_seconds=0.0)
    with pytest.raises(AirflowFailException):
        wait.execute(context("wait"))
    assert backend.live == []


def test_prepare_reuses_the_dir_for_a_retry_but_not_for_a_clear(bucket: str) -> None:
    def prepared(max_tries: int, hint: str = "2026-11-01") -> str:
        operator = PrepareJobDirOperator(
            task_id="prepare", model="m", job_id_hint=hint, bucket=bucket, gcp_conn_id=None
        )
        return operator.execute(context("prepare", max_tries=max_tries))["job_dir"]

    assert prepared(2) == prepared(2)
    assert prepared(2) != prepared(3)
    key = job_key(context("prepare", max_tries=2))
    assert JobDir(prepared(2)).job_id == make_job_id("m", "2026-11-01", key)


def test_no_second_job_starts_while_the_cancelled_one_still_runs(
    bucket: str, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(backend, bucket)
    monkeypatch.setattr(backend, "cancel", lambda _: setattr(backend.jobs[0], "state", JobState.CANCELLING))
    asyncio.run(deferred(job).on_kill())
    assert submit(backend, bucket, try_number=2)["decision"] == "reattached"
    assert len(backend.jobs) == 1
    backend.end(job["name"], JobState.CANCELLED)
    assert submit(backend, bucket, try_number=2)["decision"] == "restarted_from_checkpoint"


def test_a_failed_poll_cancels_no_job(bucket: str, backend: ScriptedBackend) -> None:
    job = submit(backend, bucket)
    backend.refuse = 1
    done = sensor(job, deferrable=False).poke(context("wait", try_number=3))
    assert not done
    backend.refuse = 1
    with pytest.raises(TaskDeferred):
        sensor(job).execute(context("wait", try_number=3))
    assert len(backend.live) == 1


def test_a_job_whose_record_was_deleted_is_cancelled_with_its_task(
    bucket: str, backend: ScriptedBackend, storage: Storage
) -> None:
    job = submit(backend, bucket)
    storage.delete(JobDir(job["job_dir"]).claim)
    with pytest.raises(ObjectMissingError):
        sensor(job).execute_complete(context("wait", try_number=3), {"event": "ended"})
    assert backend.live == []


@pytest.mark.parametrize(
    ("args", "dataset_arg", "expected"),
    [
        (None, None, ["--epochs", "50"]),
        (None, "--dataset", ["--epochs", "50", "--dataset", "gs://bkt/datasets/d/v1"]),
        (["--lr", 0.1], None, ["--lr", "0.1"]),
        (["--lr", 0.1], "--dataset", ["--lr", "0.1", "--dataset", "gs://bkt/datasets/d/v1"]),
        ([], "--dataset", ["--dataset", "gs://bkt/datasets/d/v1"]),
    ],
)
def test_the_dataset_is_added_to_the_arguments(
    bucket: str,
    storage: Storage,
    backend: ScriptedBackend,
    args: list[Any] | None,
    dataset_arg: str | None,
    expected: list[str],
) -> None:
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job={"model": "m", "job_id": "j", "job_dir": f"{bucket}/m/j"},
        job_file={"trainingInput": {"pythonModule": "trainer.task", "args": ["--epochs", "50"]}},
        args=args,
        dataset={"dataset": "d", "version": "v1", "uri": "gs://bkt/datasets/d/v1", "digest": "0" * 64, "rows": 3},
        dataset_arg=dataset_arg,
        backend=backend.name,
        gcp_conn_id=None,
    )
    job = operator.execute(context("submit"))
    record = Submitter(storage, backend).record(JobDir(job["job_dir"]))
    assert record.spec["args"] == expected


@pytest.mark.parametrize(("job_dir_arg", "expected"), [(None, "--job-dir"), ("", ""), ("--output", "--output")])
def test_the_argument_for_the_job_dir_can_be_renamed_or_omitted(
    bucket: str, storage: Storage, backend: ScriptedBackend, job_dir_arg: str | None, expected: str
) -> None:
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job={"model": "m", "job_id": "j", "job_dir": f"{bucket}/m/j"},
        job_file={"trainingInput": {"pythonModule": "trainer.task"}},
        job_dir_arg=job_dir_arg,
        backend=backend.name,
        gcp_conn_id=None,
    )
    job = operator.execute(context("submit"))
    record = Submitter(storage, backend).record(JobDir(job["job_dir"]))
    assert TrainingSpec.from_json(record.spec).job_dir_arg == expected


def test_arguments_given_as_one_string_are_refused_before_the_submission(bucket: str, backend: ScriptedBackend) -> None:
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job={"model": "m", "job_id": "j", "job_dir": f"{bucket}/m/j"},
        job_file={"trainingInput": {"pythonModule": "trainer.task"}},
        args="--epochs 5",
        backend=backend.name,
        gcp_conn_id=None,
    )
    with pytest.raises(JobFileError, match="a string"):
        operator.execute(context("submit"))
    assert backend.jobs == []


def test_airflows_default_timeout_does_not_shorten_the_running_timeout(bucket: str, backend: ScriptedBackend) -> None:
    days = 24 * 3600.0
    with pytest.raises(TaskDeferred) as caught:
        sensor(submit(backend, bucket), running_timeout_seconds=20 * days).execute(context("wait"))
    assert caught.value.timeout is not None
    assert caught.value.timeout.total_seconds() > 20 * days


@pytest.mark.parametrize(
    "progress", [b"[" * 200_000, b'{"step": -1, "of": 9}', b'{"step": 1' + b"0" * 400 + b', "of": 9}']
)
def test_invalid_progress_is_ignored(bucket: str, storage: Storage, progress: bytes) -> None:
    job_dir = JobDir(f"{bucket}/m/j")
    storage.write(job_dir.progress, progress)
    assert read_progress(storage, job_dir) is None


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e999"])
def test_non_finite_numbers_in_progress_are_ignored(bucket: str, storage: Storage, number: str) -> None:
    job_dir = JobDir(f"{bucket}/m/j")
    storage.write(job_dir.progress, f'{{"step": 1, "of": 9, "loss": {number}, "eta_seconds": {number}}}'.encode())
    assert str(read_progress(storage, job_dir)) == "step 1 of 9 (11 %)"
    storage.write(job_dir.progress, f'{{"step": {number}, "of": 9}}'.encode())
    assert read_progress(storage, job_dir) is None
