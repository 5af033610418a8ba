"""The engine with an in-memory backend: states, restarts, and a backend that cannot be reached."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from mlengine.backends import Submission
from mlengine.core.errors import BackendUnavailableError, EmulatorApiError
from mlengine.core.job import FailureCause, JobHandle, JobState
from mlengine.core.spec import TrainingSpec
from mlengine.emulator.engine import Engine
from mlengine.emulator.faults import Fault
from mlengine.emulator.job_faults import JobFaults
from mlengine.emulator.records import MLENGINE, VERTEX, Record, pack, unpack
from mlengine.emulator.vertex_api import render
from mlengine.testing.backend import MemoryBackend

CREATE = "CreateCustomJob"


def record(name: str = "1", api: str = VERTEX) -> Record:
    spec = TrainingSpec("t.task", ("gs://bkt/t.tar.gz",), ("--a",))
    submission = Submission(f"k{name}", name, 1, "gs://bkt/j", spec, {"a": "b"})
    now = time.time()
    return Record(api, "p", "r" if api == VERTEX else "", name, {"displayName": name}, pack(submission), now, now)


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def engine(backend: MemoryBackend, tmp_path: Path) -> Engine:
    return Engine(backend, tmp_path)


def test_a_submission_is_restored_from_json() -> None:
    submission = unpack(record().submission)
    assert pack(submission) == record().submission
    assert submission.spec.args == ("--a",)


def test_states_follow_the_backend(engine: Engine, backend: MemoryBackend) -> None:
    made = engine.create(record())
    assert render(made)["state"] == "JOB_STATE_QUEUED"
    engine.refresh([made])
    backend.jobs[0].state = JobState.PREPARING
    assert render(engine.get(made.key, "job"))["state"] == "JOB_STATE_PENDING"
    backend.jobs[0].state = JobState.RUNNING
    running = render(engine.get(made.key, "job"))
    assert running["state"] == "JOB_STATE_RUNNING"
    assert running["createTime"] <= running["startTime"]
    backend.jobs[0].state = JobState.UNKNOWN
    assert render(engine.get(made.key, "job"))["state"] == "JOB_STATE_RUNNING"
    backend.end("job-1", JobState.FAILED, FailureCause.LOST)
    ended = render(engine.get(made.key, "job"))
    assert ended["state"] == "JOB_STATE_FAILED"
    assert ended["error"]["code"] == 13
    assert ended["startTime"] <= ended["endTime"]


def test_only_the_copies_of_a_finished_job_are_removed(engine: Engine, backend: MemoryBackend) -> None:
    first, second = engine.create(record("1")), engine.create(record("2"))
    for made in (first, second):
        engine.objects_dir(made.key).mkdir(parents=True)
        (engine.objects_dir(made.key) / "data.csv").write_text("x")
    engine.refresh([first, second])
    backend.end("job-1", JobState.SUCCEEDED)
    engine.get(first.key, "job")
    assert not engine.objects_dir(first.key).exists()
    assert (engine.objects_dir(second.key) / "data.csv").exists()


def test_a_backend_that_cannot_be_reached_changes_nothing(engine: Engine, backend: MemoryBackend) -> None:
    backend.refuse = 1
    made = engine.create(record())
    assert engine.get(made.key, "job").state is JobState.QUEUED
    assert engine.get(made.key, "job").handle is not None
    backend.jobs[0].state = JobState.RUNNING
    engine.get(made.key, "job")
    backend.refuse = 1
    assert engine.get(made.key, "job").state is JobState.RUNNING


def test_a_restart_keeps_jobs_and_submits_the_remaining_ones(
    engine: Engine, backend: MemoryBackend, tmp_path: Path
) -> None:
    first, second = engine.create(record("1")), engine.create(record("2", MLENGINE))
    engine.refresh([first])
    again = Engine(backend, tmp_path)
    assert again.get(first.key, "job").handle == engine.get(first.key, "job").handle
    assert len(backend.jobs) == 1
    assert again.get(second.key, "job").handle is not None
    assert len(backend.jobs) == 2


def test_an_id_is_used_once(engine: Engine, backend: MemoryBackend) -> None:
    made = engine.create(record())
    with pytest.raises(EmulatorApiError) as taken:
        engine.create(record())
    assert taken.value.status == "ALREADY_EXISTS"
    engine.refresh([made])
    backend.end("job-1", JobState.SUCCEEDED)
    engine.delete(engine.get(made.key, "job"))
    with pytest.raises(EmulatorApiError) as gone:
        engine.get(made.key, "CustomJob 1")
    assert gone.value.status == "NOT_FOUND"
    with pytest.raises(EmulatorApiError):
        engine.create(record())


def test_cancel_and_delete_check_the_state(engine: Engine, backend: MemoryBackend) -> None:
    made = engine.create(record())
    engine.refresh([made])
    with pytest.raises(EmulatorApiError, match="cancel it first"):
        engine.delete(engine.get(made.key, "job"))
    engine.cancel(made)
    assert engine.get(made.key, "job").state is JobState.CANCELLED
    assert render(engine.get(made.key, "job"))["error"] == {"code": 1, "message": "CANCELED"}
    with pytest.raises(EmulatorApiError, match="has ended"):
        engine.cancel(made)


def test_a_deleted_job_is_only_hidden(engine: Engine, backend: MemoryBackend) -> None:
    made = engine.create(record())
    engine.refresh([made])
    backend.end("job-1", JobState.SUCCEEDED)
    calls = len(backend.calls)
    engine.delete(engine.get(made.key, "job"))
    with pytest.raises(EmulatorApiError, match="not found"):
        engine.get(made.key, "job")
    assert engine.store.get(made.key) is not None
    assert backend.calls[calls:] == ["describe"], "only the state must be requested from the backend"


def test_a_stuck_job_is_never_submitted(engine: Engine, backend: MemoryBackend) -> None:
    made = engine.create(replace(record(), stuck=True))
    assert render(engine.get(made.key, "job"))["state"] == "JOB_STATE_PENDING"
    assert backend.jobs == []
    engine.cancel(made)
    assert render(engine.get(made.key, "job"))["state"] == "JOB_STATE_CANCELLED"


def test_a_job_waits_for_its_quota(engine: Engine, backend: MemoryBackend) -> None:
    now = time.time()
    made = engine.create(replace(record(), faults=JobFaults.of([Fault(CREATE, "queue", seconds=60)], now, "r")))
    assert render(engine.get(made.key, "job"))["state"] == "JOB_STATE_QUEUED"
    assert backend.jobs == []
    engine._put(made, faults=replace(made.faults, submit_at=now))
    assert engine.get(made.key, "job").handle is not None


@pytest.mark.parametrize("api", [VERTEX, MLENGINE])
def test_a_job_is_cancelled_at_its_time_limit(engine: Engine, backend: MemoryBackend, api: str) -> None:
    made = engine.create(record(api=api))
    engine.refresh([made])
    backend.end("job-1", JobState.FAILED, FailureCause.DEADLINE)
    ended = engine.get(made.key, "job")
    assert (ended.state, ended.error) == (JobState.CANCELLED, {"code": 1, "message": "CANCELED"})


def test_a_job_that_exceeds_its_wait_limit_is_cancelled(engine: Engine, backend: MemoryBackend) -> None:
    limited = record()
    limited = replace(
        limited, submission={**limited.submission, "spec": TrainingSpec("t", max_wait_seconds=5).to_json()}
    )
    waiting = engine.create(replace(limited, stuck=True, created=time.time() - 4.0))
    assert engine.get(waiting.key, "job").state is JobState.QUEUED
    late = engine.create(replace(limited, id="2", stuck=True, created=time.time() - 6.0))
    assert engine.get(late.key, "job").state is JobState.CANCELLED
    # A job that has run and is queued again does not exceed the limit.
    again = engine.create(replace(limited, id="3", stuck=True, created=time.time() - 6.0, started=time.time() - 5.0))
    assert engine.get(again.key, "job").state is JobState.QUEUED
    assert backend.jobs == []


def test_a_restarted_job_keeps_its_first_start_and_its_log(
    engine: Engine, backend: MemoryBackend, tmp_path: Path
) -> None:
    faults = JobFaults.of([Fault(CREATE, "stockout", restarts=1, seconds=0.0)], 0.0, "us-central1")
    made = engine.create(replace(record(), faults=faults))
    engine.refresh([made])
    backend.jobs[0].state = JobState.RUNNING
    first = engine.get(made.key, "job")
    assert first.state is JobState.RUNNING
    assert backend.jobs[0].state is JobState.CANCELLED, "the processes of the job must be stopped"
    pending = engine.get(made.key, "job")
    assert render(pending)["state"] == "JOB_STATE_PENDING"
    assert render(pending)["startTime"] == render(first)["startTime"]
    again = Engine(backend, tmp_path)  # a restart of the emulator changes nothing
    assert again.get(made.key, "job").handle is not None
    assert backend.jobs[1].submission.key != backend.jobs[0].submission.key
    assert backend.jobs[1].submission.attempt == backend.jobs[0].submission.attempt
    backend.jobs[1].state = JobState.RUNNING
    assert again.get(made.key, "job").state is JobState.RUNNING
    ended = render(again.get(made.key, "job"))
    assert ended["state"] == "JOB_STATE_FAILED"
    assert ended["startTime"] == render(first)["startTime"]
    assert ended["error"]["code"] == 8
    assert ended["error"]["message"].startswith("Resources are insufficient in region: us-central1.")


def test_a_job_that_is_cancelled_while_it_is_restarted_is_cancelled(engine: Engine, backend: MemoryBackend) -> None:
    made = engine.create(replace(record(), faults=JobFaults(restarts=5)))
    engine.refresh([made])
    backend.jobs[0].state = JobState.RUNNING
    cancel, backend.cancel = backend.cancel, lambda handle: None  # type: ignore[method-assign]
    assert engine.get(made.key, "job").faults.ending
    engine.cancel(made)
    backend.cancel = cancel  # type: ignore[method-assign]
    assert engine.get(made.key, "job").state is JobState.CANCELLING
    backend.end("job-1", JobState.CANCELLED, FailureCause.CANCELLED)
    assert engine.get(made.key, "job").state is JobState.CANCELLED


def test_the_error_of_a_failed_job_can_be_delayed(engine: Engine, backend: MemoryBackend) -> None:
    made = engine.create(replace(record(), faults=JobFaults(error_delay=60.0)))
    engine.refresh([made])
    backend.end("job-1", JobState.FAILED, FailureCause.TRAINER)
    failed = engine.get(made.key, "job")
    assert failed.state is JobState.FAILED
    assert "error" not in render(failed)
    assert render(replace(failed, ended=time.time() - 61.0))["error"]["code"] == 3


def test_a_list_has_the_jobs_of_one_parent_newest_first(engine: Engine) -> None:
    for name in ("1", "2", "3"):
        engine.create(record(name))
    engine.create(replace(record("4"), region="elsewhere"))
    engine.create(record("5", MLENGINE))
    assert [found.id for found in engine.jobs_of(VERTEX, "p", "r")] == ["3", "2", "1"]
    assert [found.id for found in engine.jobs_of(MLENGINE, "p", "")] == ["5"]


def test_a_failed_cancel_request_changes_nothing(engine: Engine, backend: MemoryBackend) -> None:
    made = engine.create(record())
    engine.refresh([made])
    backend.jobs[0].state = JobState.RUNNING
    engine.refresh([made])
    cancel = backend.cancel

    def unavailable(handle: JobHandle) -> None:
        raise BackendUnavailableError("not now")

    backend.cancel = unavailable  # type: ignore[method-assign]
    with pytest.raises(BackendUnavailableError):
        engine.cancel(made)
    assert engine.get(made.key, "job").state is JobState.RUNNING
    backend.cancel = cancel  # type: ignore[method-assign]
    engine.cancel(made)
    assert engine.get(made.key, "job").state is JobState.CANCELLED


def test_only_labels_can_be_changed(engine: Engine, backend: MemoryBackend) -> None:
    made = engine.create(record())
    engine.refresh([made])
    backend.end("job-1", JobState.SUCCEEDED)
    engine.refresh([made])
    relabelled = engine.relabel(made, {"team": "vision"})
    assert relabelled.state is JobState.SUCCEEDED
    assert engine.get(made.key, "job").labels == {"team": "vision"}
