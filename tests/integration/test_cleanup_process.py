"""Tests the process that cancels the jobs of a run that has ended."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from mlengine import backends, connections
from mlengine.core.job import JobKey, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.jobs.submission import Intent, Submitter, ended_with_task
from mlengine.listeners import cleanup_process
from mlengine.listeners.cleanup_process import CancelRequest
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from tests.support.local_jobs import until

pytestmark = pytest.mark.integration

KEY = JobKey("dag", "run", "submit")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder in which requests are stored."""
    monkeypatch.setenv("MLENGINE_ORPHANS", str(tmp_path))
    return tmp_path


def write(folder: Path, request: CancelRequest, name: str = "1.json") -> None:
    (folder / name).write_text(json.dumps([asdict(request)]))


@pytest.fixture
def backend(folder: Path, storage: Storage) -> MemoryBackend:
    assert storage
    memory = MemoryBackend()
    backends.register("memory", lambda **_: memory)
    connections.forget_connections()
    write(folder, CancelRequest(KEY.digest, backend="memory"))
    return memory


def submit(storage: Storage, bucket: str) -> JobDir:
    job_dir = JobDir.of(bucket, "m", "j")
    Submitter(storage, backends.get_backend("memory")).submit(Intent(KEY, "m", job_dir, TrainingSpec("trainer.task")))
    return job_dir


def test_a_running_job_is_cancelled_and_recorded(storage: Storage, bucket: str, backend: MemoryBackend) -> None:
    job_dir = submit(storage, bucket)
    assert cleanup_process.main() == 0
    assert backend.live == []
    assert ended_with_task(Submitter(storage, backend).record(job_dir))


def test_a_request_can_identify_the_job_by_its_dir(
    storage: Storage, bucket: str, backend: MemoryBackend, folder: Path
) -> None:
    job_dir = submit(storage, bucket)
    write(folder, CancelRequest(job_dir=job_dir.uri, backend="memory"))
    assert cleanup_process.main() == 0
    assert backend.live == []


@pytest.mark.parametrize(
    ("owner", "cancelled"),
    [({"dag_id": "dag", "run_id": "run"}, True), ({"dag_id": "dag", "run_id": "another"}, False), (None, True)],
)
def test_a_job_of_an_earlier_generation_is_found_by_the_job_dir(
    storage: Storage, bucket: str, backend: MemoryBackend, folder: Path, owner: dict[str, str] | None, cancelled: bool
) -> None:
    """The task was cleared, and had not submitted again when the run ended."""
    job_dir = submit(storage, bucket)
    later = replace(KEY, generation=KEY.generation + 2)
    write(folder, CancelRequest(later.digest, job_dir.uri, owner, backend="memory"))
    assert cleanup_process.main() == 0
    assert (backend.live == []) is cancelled


def test_a_request_whose_job_dir_has_no_record_falls_back_to_the_key(
    storage: Storage, bucket: str, backend: MemoryBackend, folder: Path
) -> None:
    submit(storage, bucket)
    write(folder, CancelRequest(KEY.digest, f"{bucket}/m/none", backend="memory"))
    assert cleanup_process.main() == 0
    assert backend.live == []


def test_old_requests_of_another_environment_are_handled(
    storage: Storage, bucket: str, backend: MemoryBackend, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The component that wrote the requests was restarted with another environment."""
    submit(storage, bucket)
    (folder / "1.json").unlink()
    ours, other = tmp_path / "orphans" / "ours", tmp_path / "orphans" / "other"
    for path in (ours, other):
        path.mkdir(parents=True)
    monkeypatch.setenv("MLENGINE_ORPHANS", str(ours))
    write(other, CancelRequest(KEY.digest, backend="memory"))
    assert cleanup_process.main() == 0
    assert backend.live != []
    os.utime(other / "1.json", (time.time() - 600, time.time() - 600))
    assert cleanup_process.main() == 0
    assert backend.live == []
    assert not (other / "1.json").exists()


def test_the_process_inherits_the_module_search_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An example is a secrets backend that Airflow's configuration names."""
    commands: list[dict[str, str]] = []
    monkeypatch.setattr(subprocess, "run", lambda *_, env, **__: commands.append(env))
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "/opt/corp:/opt/more")
    cleanup_process.start([CancelRequest(KEY.digest)])
    paths = commands[0]["PYTHONPATH"].split(os.pathsep)
    assert paths[1:] == ["/opt/corp", "/opt/more"]
    assert (Path(paths[0]) / "mlengine").is_dir()


def test_a_job_that_has_ended_is_left_alone(storage: Storage, bucket: str, backend: MemoryBackend) -> None:
    submit(storage, bucket)
    backend.end("job-1", JobState.SUCCEEDED)
    assert cleanup_process.main() == 0
    assert "cancel" not in backend.calls


def test_a_submission_in_progress_is_cancelled_once_it_completes(
    storage: Storage, bucket: str, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlengine.listeners.cleanup_process.time.sleep", lambda _: submit(storage, bucket))
    assert cleanup_process.main() == 0
    assert len(backend.jobs) == 1
    assert backend.live == []


def test_a_request_whose_job_was_found_is_not_repeated(
    storage: Storage, bucket: str, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task may have been cleared by then, so that its job continues as attempt 2."""
    submit(storage, bucket)
    monkeypatch.setattr(
        "mlengine.listeners.cleanup_process.time.sleep",
        lambda _: pytest.fail("the process waited although all jobs are found"),
    )
    assert cleanup_process.main() == 0


def test_an_attempt_started_after_the_end_of_the_wait_is_left_alone(
    storage: Storage, bucket: str, backend: MemoryBackend, folder: Path
) -> None:
    submit(storage, bucket)
    backend.jobs[0].created = 2000.0
    write(folder, CancelRequest(KEY.digest, backend="memory", begun_before=1000.0))
    assert cleanup_process.main() == 0
    assert len(backend.live) == 1
    write(folder, CancelRequest(KEY.digest, backend="memory", begun_before=3000.0))
    assert cleanup_process.main() == 0
    assert backend.live == []


def test_an_unreadable_request_does_not_block_the_others(
    storage: Storage, bucket: str, backend: MemoryBackend, folder: Path
) -> None:
    submit(storage, bucket)
    (folder / "0.json").write_text("[{")
    assert cleanup_process.main() == 0
    assert backend.live == []
    assert list(folder.glob("*.json")) == []


def test_one_process_handles_all_requests(
    storage: Storage, bucket: str, backend: MemoryBackend, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(storage, bucket)
    original = cleanup_process.cancel_jobs
    handled: list[CancelRequest] = []

    def cancel_jobs(request: CancelRequest) -> bool:
        if not handled:
            handled.append(request)
            write(folder, CancelRequest("k" * 40, backend="memory"), "2.json")
            assert cleanup_process.main() == 0, "a second process must not get the lock"
            assert (folder / "2.json").exists()
        else:
            handled.append(request)
        return bool(original(request)) or True

    monkeypatch.setattr(cleanup_process, "cancel_jobs", cancel_jobs)
    assert cleanup_process.main() == 0
    assert [request.key for request in handled] == [KEY.digest, "k" * 40]
    assert list(folder.glob("*.json")) == []


def test_starting_the_process_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses real processes, with a local backend's folder that has no jobs."""
    (tmp_path / "jobs").mkdir()
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "home"))
    children = set(_children())
    begun = time.monotonic()
    for _ in range(5):
        cleanup_process.start([CancelRequest("k" * 40, backend="local", backend_options={"state_dir": str(tmp_path)})])
        # Without a job, the process repeats its search after 10 s. Right after its start, its command line cannot be
        # read yet.
        until(lambda: _running(tmp_path), "the process is running after start() has returned", seconds=8.0)
    assert set(_children()) == children, "the caller has no child process to reap"
    (folder,) = (tmp_path / "home" / "mlengine" / "orphans").iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    while list(folder.glob("*.json")):
        assert time.monotonic() - begun < 60.0, "the requests were not handled"
        time.sleep(0.1)


@pytest.mark.parametrize("end", [Session.commit, Session.rollback, Session.close])
def test_the_process_starts_after_the_transaction_that_ends_the_run(
    end: Callable[[Session], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is cancelled before would let the triggerer resume a wait whose end is not committed yet."""
    started: list[Path] = []
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setattr(cleanup_process, "_spawn", started.append)
    session = Session(create_engine("sqlite://"))
    for count in (1, 2):
        session.execute(text("select 1"))
        for key in ("a", "b"):
            cleanup_process.start([CancelRequest(key * 40)], session)
        with session.begin_nested():
            pass
        assert len(started) == count - 1
        assert len(list(tmp_path.rglob("*.json"))) == 2 * count, "the requests survive a crash"
        end(session)
        assert len(started) == count, "both requests need one process"
    session.execute(text("select 1"))
    end(session)
    assert len(started) == 2


def test_a_process_that_cannot_start_does_not_fail_the_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(folder: Path) -> None:
        raise OSError(f"no process for {folder}")

    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setattr(cleanup_process, "_spawn", fail)
    session = Session(create_engine("sqlite://"))
    session.execute(text("select 1"))
    cleanup_process.start([CancelRequest("a" * 40)], session)
    session.commit()
    assert "mlengine jobs reap" in caplog.text


def _running(folder: Path) -> bool:
    return any(_cleans_up_for(process, folder / "home") for process in psutil.process_iter())


def _cleans_up_for(process: psutil.Process, home: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        same = process.environ().get("AIRFLOW_HOME") == str(home)
        return same and "mlengine.listeners.cleanup_process" in process.cmdline()
    return False


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
