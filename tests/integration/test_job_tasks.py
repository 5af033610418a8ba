"""Submit and wait as Airflow's tasks, against a real bucket and a backend whose jobs end when the test says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferred
from airflow.sdk.observability import stats

from mlengine import backends, connections
from mlengine.backends import LogLine, LogPage
from mlengine.core.errors import BackendUnavailableError, JobFileError, ObjectMissingError
from mlengine.core.job import FailureCause, JobHandle, JobState, make_job_id
from mlengine.core.layout import JobDir
from mlengine.jobs.progress import read_progress
from mlengine.operators.intent import job_key
from mlengine.operators.prepare import PrepareJobDirOperator
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.sensors.training_job import TrainingJobSensor
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from mlengine.triggers import training_job
from mlengine.triggers.training_job import TrainingJobTrigger
from tests.integration.paid import Paid, paid

pytestmark = pytest.mark.integration

__all__ = ["paid"]
current: Paid = MemoryBackend()


def the_backend(**_: Any) -> Paid:
    return current


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch, storage: Storage, paid: Paid) -> Iterator[Paid]:
    """The backend of that name, whatever its name is: everything here holds for each."""
    global current  # noqa: PLW0603 the registry makes backends by import path
    current = paid
    backends.register(paid.name, f"{__name__}:the_backend")
    monkeypatch.setattr(training_job, "EARLIEST_EVENT_SECONDS", 0.0)
    connections.connect_storage.cache_clear()
    assert storage
    yield current
    connections.connect_storage.cache_clear()


def context(task_id: str, *, run_id: str = "r", try_number: int = 1, max_tries: int = 2) -> dict[str, Any]:
    ti = SimpleNamespace(
        dag_id="dag", run_id=run_id, task_id=task_id, map_index=-1, try_number=try_number, max_tries=max_tries
    )
    return {"ti": ti}


def submit(bucket: str, **ti: Any) -> dict[str, Any]:
    prepare = PrepareJobDirOperator(task_id="prepare", model="m", job_id_hint="h", bucket=bucket, gcp_conn_id=None)
    job = prepare.execute(context("prepare"))
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job=job,
        job_file={"trainingInput": {"pythonModule": "trainer.task"}},
        backend=current.name,
        gcp_conn_id=None,
    )
    return operator.execute(context("submit", **ti))


def sensor(job: dict[str, Any], **more: Any) -> TrainingJobSensor:
    return TrainingJobSensor(task_id="wait", job=job, gcp_conn_id=None, poll_interval_seconds=0.01, **more)


def deferred(job: dict[str, Any], **more: Any) -> TrainingJobTrigger:
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


def test_a_retry_finds_its_job_and_a_clear_makes_another(bucket: str, backend: Paid) -> None:
    first = submit(bucket)
    again = submit(bucket, try_number=2)
    assert (first["decision"], again["decision"]) == ("fresh_submit", "reattached")
    assert again["name"] == first["name"]
    cleared = submit(bucket, try_number=2, max_tries=3)
    assert cleared["decision"] == "fresh_submit"
    assert cleared["job_dir"] != first["job_dir"]
    assert [job.handle.name for job in backend.live] == [cleared["name"]]


def test_what_travels_by_xcom_is_small_and_plain(bucket: str) -> None:
    job = submit(bucket)
    assert set(job) == {"backend", "name", "job_id", "attempt", "job_dir", "decision"}
    assert all(isinstance(value, str | int) for value in job.values())


def test_a_bad_job_file_costs_nothing(bucket: str, backend: Paid) -> None:
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job={"model": "m", "job_id": "j", "job_dir": f"{bucket}/m/j"},
        job_file={"trainingInput": {"pythonModule": "trainer.task", "scaleTier": "STANDART_1"}},
        backend=current.name,
        gcp_conn_id=None,
    )
    with pytest.raises(JobFileError, match="STANDARD_1"):
        operator.execute(context("submit"))
    assert backend.jobs == []


def test_a_deferred_wait_ends_with_the_job(bucket: str, backend: Paid) -> None:
    job = submit(bucket)
    trigger = deferred(job)
    backend.end(job["name"], JobState.SUCCEEDED)
    event = asyncio.run(first_event(trigger))
    assert event == {"job_id": job["job_id"], "event": "ended", "state": "SUCCEEDED"}
    result = sensor(job).execute_complete(context("wait"), event)
    assert (result["state"], result["job_dir"]) == ("SUCCEEDED", job["job_dir"])


def test_a_job_that_has_ended_is_not_deferred_for(bucket: str, backend: Paid) -> None:
    job = submit(bucket)
    backend.end(job["name"], JobState.SUCCEEDED)
    assert sensor(job).execute(context("wait"))["state"] == "SUCCEEDED"


def test_a_lost_job_goes_on_as_the_next_attempt(bucket: str, backend: Paid) -> None:
    job = submit(bucket)
    backend.end(job["name"], JobState.FAILED, FailureCause.PREEMPTED)
    with pytest.raises(TaskDeferred) as caught:
        sensor(job).execute_complete(context("wait"), {"event": "ended"})
    assert isinstance(caught.value.trigger, TrainingJobTrigger)
    handle = JobHandle.from_json(caught.value.trigger.handle)
    assert (handle.attempt, handle.job_dir) == (2, job["job_dir"])
    backend.end(handle.name, JobState.SUCCEEDED)
    result = sensor(job).execute_complete(context("wait"), {"event": "ended"})
    assert result["attempt"] == 2, "the submission's XCom names attempt 1; the truth is read again"


def test_the_trainers_own_failure_fails_the_task_for_good(bucket: str, backend: Paid) -> None:
    job = submit(bucket)
    backend.end(job["name"], JobState.FAILED, FailureCause.TRAINER)
    with pytest.raises(AirflowFailException, match="ended by trainer"):
        sensor(job).execute_complete(context("wait"), {"event": "ended"})
    assert len(backend.jobs) == 1


@pytest.mark.parametrize("queued", [True, False])
def test_our_deadline_ends_job_and_task(bucket: str, backend: Paid, queued: bool) -> None:
    job = submit(bucket)
    if not queued:
        backend.jobs[0].state = JobState.RUNNING
    limits = {"queued_timeout_seconds": 0.0, "running_timeout_seconds": 100.0 if queued else 0.0}
    event = asyncio.run(first_event(deferred(job, **limits)))
    assert event["event"] == "deadline"
    with pytest.raises(AirflowFailException, match="raise queued_timeout_seconds or running_timeout_seconds"):
        sensor(job, **limits).execute_complete(context("wait"), event)
    assert backend.live == []


def test_a_deadline_passes_even_if_nobody_answers(bucket: str, backend: Paid) -> None:
    trigger = deferred(submit(bucket), queued_timeout_seconds=0.0, running_timeout_seconds=0.5)
    backend.refuse = 10_000
    assert asyncio.run(first_event(trigger))["event"] == "deadline"


def test_killed_while_deferred_the_job_is_cancelled(bucket: str, backend: Paid) -> None:
    trigger = deferred(submit(bucket))
    asyncio.run(trigger.on_kill())
    assert backend.live == []


def test_a_triggerers_restart_leaves_the_job_alone(bucket: str, backend: Paid) -> None:
    trigger = deferred(submit(bucket))

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
        # Airflow does not try a sensor again whose time is over, however many tries it has left.
        ("Trigger timeout", 1, 0),
        ("Trigger timeout", 3, 0),
        ("Trigger failure", 1, 1),
        ("Trigger failure", 3, 0),
    ],
)
def test_a_deferral_that_airflow_ends_ends_the_job_with_the_task(
    bucket: str, backend: Paid, error: str, try_number: int, live: int
) -> None:
    job = submit(bucket)
    with pytest.raises(AirflowException, match=error):
        sensor(job).resume_execution("__fail__", {"error": error}, context("wait", try_number=try_number))
    assert len(backend.live) == live


def test_a_skip_for_soft_fail_ends_the_job_too(bucket: str, backend: Paid) -> None:
    job = submit(bucket)
    with pytest.raises(AirflowSkipException):
        sensor(job, soft_fail=True).resume_execution("__fail__", {"error": "Trigger timeout"}, context("wait"))
    assert backend.live == []


def test_airflows_limits_count_for_a_deferral(bucket: str) -> None:
    for limits in ({"execution_timeout": timedelta(seconds=7)}, {"timeout": 7.0}):
        with pytest.raises(TaskDeferred) as caught:
            sensor(submit(bucket), **limits).execute(context("wait"))
        assert caught.value.timeout == timedelta(seconds=7)


def test_a_job_that_ends_while_its_deadline_passes_has_ended(bucket: str, backend: Paid) -> None:
    job = submit(bucket)
    backend.end(job["name"], JobState.SUCCEEDED)
    late = {"event": "deadline", "reason": "running_timeout_seconds has passed"}
    assert sensor(job).execute_complete(context("wait"), late)["state"] == "SUCCEEDED"


def test_what_somebody_else_cancelled_stays_so_until_it_is_cleared(bucket: str, backend: Paid) -> None:
    job = submit(bucket)
    backend.cancel(JobHandle.from_json(job))
    with pytest.raises(AirflowFailException, match="by somebody else"):
        sensor(job).execute_complete(context("wait"), {"event": "ended"})
    assert len(backend.jobs) == 1
    with pytest.raises(TaskDeferred):
        sensor(job).execute(context("wait", try_number=2))
    assert [live.handle.attempt for live in backend.live] == [2]


def test_what_its_task_cancelled_goes_on_when_the_task_is_tried_again(bucket: str, backend: Paid) -> None:
    job = submit(bucket)
    asyncio.run(deferred(job).on_kill())
    # The new try's first look came before the cancellation; its second does not take it for somebody else's.
    with pytest.raises(TaskDeferred):
        sensor(job).execute_complete(context("wait", try_number=2), {"event": "ended"})
    assert [live.handle.attempt for live in backend.live] == [2]


def test_a_task_that_runs_on_after_its_kill_starts_nothing(bucket: str, backend: Paid) -> None:
    job = submit(bucket)
    wait = sensor(job, deferrable=False)
    wait.on_kill()
    with pytest.raises(AirflowFailException, match="was killed"):
        wait.poke(context("wait"))
    assert len(backend.jobs) == 1


def test_a_kill_in_the_middle_of_a_submission_ends_what_is_submitted_after_it(
    bucket: str, backend: Paid, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job={"model": "m", "job_id": "j", "job_dir": f"{bucket}/m/j"},
        job_file={"trainingInput": {"pythonModule": "trainer.task"}},
        backend=current.name,
        gcp_conn_id=None,
    )
    really = backend.submit

    def killed_just_before(*arguments: Any) -> JobHandle:
        operator.on_kill()
        return really(*arguments)

    monkeypatch.setattr(backend, "submit", killed_just_before)
    with pytest.raises(AirflowFailException, match="killed while"):
        operator.execute(context("submit"))
    assert len(backend.jobs) == 1
    assert backend.live == []


def test_a_clear_from_prepare_on_ends_the_job_of_the_former_life(bucket: str, backend: Paid) -> None:
    """The cleared run's job dir has another name; the former life's job is found by its key all the same."""
    first = submit(bucket)

    def cleared(max_tries: int) -> dict[str, Any]:
        prepare = PrepareJobDirOperator(task_id="prepare", model="m", job_id_hint="h", bucket=bucket, gcp_conn_id=None)
        job = prepare.execute(context("prepare", try_number=2, max_tries=max_tries))
        operator = SubmitTrainingJobOperator(
            task_id="submit",
            job=job,
            job_file={"trainingInput": {"pythonModule": "trainer.task"}},
            backend=current.name,
            gcp_conn_id=None,
        )
        return operator.execute(context("submit", try_number=2, max_tries=max_tries))

    second = cleared(3)
    assert second["job_dir"] != first["job_dir"]
    assert [job.handle.name for job in backend.live] == [second["name"]]


def test_a_failure_of_the_machines_waits_before_the_next_attempt(
    bucket: str, backend: Paid, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(bucket)
    backend.end(job["name"], JobState.FAILED, FailureCause.QUOTA)
    backend.jobs[0].ended = time.time()
    with pytest.raises(TaskDeferred) as caught:
        sensor(job).execute_complete(context("wait"), {"event": "ended"})
    assert len(backend.jobs) == 1, "not yet"
    trigger = caught.value.trigger
    assert isinstance(trigger, TrainingJobTrigger)
    assert 5 < trigger.not_before - time.time() < 11
    trigger.not_before = time.time() + 0.1
    assert asyncio.run(first_event(trigger))["event"] == "due"
    assert not sensor(job, deferrable=False).poke(context("wait")), "nor without a triggerer"
    assert len(backend.jobs) == 1
    backend.jobs[0].ended = time.time() - 11
    with pytest.raises(TaskDeferred):
        sensor(job).execute_complete(context("wait"), {"event": "due"})
    assert [live.handle.attempt for live in backend.live] == [2]


def test_each_decision_is_a_metric_of_the_same_word(
    bucket: str, backend: Paid, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(stats, "incr", lambda name, tags: counted.append(f"{name} {tags['task_id']}"))
    job = submit(bucket)
    submit(bucket, try_number=2)
    backend.end(job["name"], JobState.FAILED, FailureCause.LOST)
    with pytest.raises(TaskDeferred):
        sensor(job).execute_complete(context("wait"), {"event": "ended"})
    assert counted == [
        "mlengine.fresh_submit submit",
        "mlengine.reattached submit",
        "mlengine.restarted_from_checkpoint wait",
    ]


def test_killed_in_the_worker_the_job_is_cancelled(bucket: str, backend: Paid) -> None:
    job = submit(bucket)
    sensor(job).on_kill()
    assert backend.live == []


def test_a_submission_killed_before_its_answer_is_cancelled_by_its_key(bucket: str, backend: Paid) -> None:
    backend.lose_answers = 1
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job={"model": "m", "job_id": "j", "job_dir": f"{bucket}/m/j"},
        job_file={"trainingInput": {"pythonModule": "trainer.task"}},
        backend=current.name,
        gcp_conn_id=None,
    )
    with pytest.raises(BackendUnavailableError):
        operator.execute(context("submit"))
    assert len(backend.live) == 1, "it has tries left, and will find it"
    operator.on_kill()
    assert backend.live == []


def test_a_wait_without_a_triggerer_tells_each_line_once(
    bucket: str, backend: Paid, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(bucket)
    texts = ["one", "two", "three"]

    def logs(handle: JobHandle, cursor: dict[str, Any], limit: int = 1000) -> LogPage:
        start = int(cursor.get("at", 0))
        lines = tuple(LogLine("worker-1", text) for text in texts[start : start + 1])
        return LogPage(lines, {"at": start + len(lines)}, more=start + len(lines) < len(texts))

    monkeypatch.setattr(backend, "logs", logs)
    told: list[str] = []
    for _ in range(2):  # two pokes, each in a process of its own
        wait = sensor(job, deferrable=False, mode="reschedule")
        monkeypatch.setattr(wait.log, "info", lambda message, *words: told.append(message % words))
        assert not wait.poke(context("wait"))
    assert [line.split("| ")[1] for line in told if "worker-1" in line] == texts
    backend.end(job["name"], JobState.SUCCEEDED)
    done = sensor(job, deferrable=False).poke(context("wait"))
    assert done.is_done
    assert (done.xcom_value or {})["state"] == "SUCCEEDED"


def test_a_wait_without_a_triggerer_keeps_the_deadline(bucket: str, backend: Paid) -> None:
    job = submit(bucket)
    wait = sensor(job, deferrable=False, queued_timeout_seconds=0.0)
    with pytest.raises(AirflowFailException):
        wait.execute(context("wait"))
    assert backend.live == []


def test_prepare_names_the_same_dir_for_a_retry_and_another_for_a_clear(bucket: str) -> None:
    def prepared(max_tries: int, hint: str = "2026-11-01") -> str:
        operator = PrepareJobDirOperator(
            task_id="prepare", model="m", job_id_hint=hint, bucket=bucket, gcp_conn_id=None
        )
        return operator.execute(context("prepare", max_tries=max_tries))["job_dir"]

    assert prepared(2) == prepared(2)
    assert prepared(2) != prepared(3)
    key = job_key(context("prepare", max_tries=2))
    assert JobDir(prepared(2)).job_id == make_job_id("m", "2026-11-01", key)


def test_a_cancelled_job_that_still_runs_has_no_second_beside_it(bucket: str, backend: Paid) -> None:
    job = submit(bucket)
    backend.jobs[0].state = JobState.CANCELLING
    assert submit(bucket, try_number=2)["decision"] == "reattached"
    assert len(backend.jobs) == 1
    backend.end(job["name"], JobState.CANCELLED)
    assert submit(bucket, try_number=2)["decision"] == "restarted_from_checkpoint"


def test_a_look_that_fails_ends_no_job(bucket: str, backend: Paid) -> None:
    job = submit(bucket)
    backend.refuse = 1
    done = sensor(job, deferrable=False).poke(context("wait", try_number=3))
    assert not done
    backend.refuse = 1
    with pytest.raises(TaskDeferred):
        sensor(job).execute(context("wait", try_number=3))
    assert len(backend.live) == 1


def test_a_job_whose_record_is_gone_is_ended_with_its_task(bucket: str, backend: Paid, storage: Storage) -> None:
    job = submit(bucket)
    storage.delete(JobDir(job["job_dir"]).claim)
    with pytest.raises(ObjectMissingError):
        sensor(job).execute_complete(context("wait", try_number=3), {"event": "ended"})
    assert backend.live == []


def test_arguments_in_one_text_are_refused_before_they_are_paid_for(bucket: str, backend: Paid) -> None:
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job={"model": "m", "job_id": "j", "job_dir": f"{bucket}/m/j"},
        job_file={"trainingInput": {"pythonModule": "trainer.task"}},
        args="--epochs 5",
        backend=current.name,
        gcp_conn_id=None,
    )
    with pytest.raises(JobFileError, match="one text"):
        operator.execute(context("submit"))
    assert backend.jobs == []


def test_what_running_timeout_allows_is_not_cut_off_by_airflows_week(bucket: str) -> None:
    days = 24 * 3600.0
    with pytest.raises(TaskDeferred) as caught:
        sensor(submit(bucket), running_timeout_seconds=20 * days).execute(context("wait"))
    assert caught.value.timeout is not None
    assert caught.value.timeout.total_seconds() > 20 * days


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e999"])
def test_progress_that_is_no_number_hurts_nobody(bucket: str, storage: Storage, number: str) -> None:
    job_dir = JobDir(f"{bucket}/m/j")
    storage.write(job_dir.progress, f'{{"step": 1, "of": 9, "loss": {number}, "eta_seconds": {number}}}'.encode())
    assert str(read_progress(storage, job_dir)) == "step 1 of 9 (11 %)"
    storage.write(job_dir.progress, f'{{"step": {number}, "of": 9}}'.encode())
    assert read_progress(storage, job_dir) is None
