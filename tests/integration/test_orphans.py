"""What is done with the jobs of a run that is over, in the process that the listener starts."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mlengine import backends, connections
from mlengine.core.job import JobKey, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.jobs.submission import Intent, Submitter, ended_with_task
from mlengine.listeners import cleanup_process
from mlengine.listeners.cleanup_process import Order
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend

pytestmark = pytest.mark.integration

current = MemoryBackend()
KEY = JobKey("dag", "run", "submit")


def the_backend(**_: Any) -> MemoryBackend:
    return current


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder that they are left in."""
    monkeypatch.setenv("MLENGINE_ORPHANS", str(tmp_path))
    return tmp_path


def leave(orders: Path, order: Order, name: str = "1.json") -> None:
    (orders / name).write_text(json.dumps([asdict(order)]))


@pytest.fixture
def backend(orders: Path, storage: Storage) -> MemoryBackend:
    global current  # noqa: PLW0603 the registry makes backends by import path
    assert storage
    current = MemoryBackend()
    backends.register("memory", f"{__name__}:the_backend")
    connections.forget_connections()
    leave(orders, Order(KEY.digest, backend="memory"))
    return current


def submit(storage: Storage, bucket: str) -> JobDir:
    job_dir = JobDir.of(bucket, "m", "j")
    Submitter(storage, current).submit(Intent(KEY, "m", job_dir, TrainingSpec("trainer.task")))
    return job_dir


def test_what_lives_is_ended_and_noted(storage: Storage, bucket: str, backend: MemoryBackend) -> None:
    job_dir = submit(storage, bucket)
    assert cleanup_process.main() == 0
    assert backend.live == []
    assert ended_with_task(Submitter(storage, backend).record(job_dir))


def test_a_run_that_only_waits_names_the_job_dir(
    storage: Storage, bucket: str, backend: MemoryBackend, orders: Path
) -> None:
    job_dir = submit(storage, bucket)
    leave(orders, Order(job_dir=job_dir.uri, backend="memory"))
    assert cleanup_process.main() == 0
    assert backend.live == []


def test_what_has_ended_is_left_alone(storage: Storage, bucket: str, backend: MemoryBackend) -> None:
    submit(storage, bucket)
    backend.end("job-1", JobState.SUCCEEDED)
    assert cleanup_process.main() == 0
    assert "cancel" not in backend.calls


def test_a_submission_that_was_on_its_way_is_found_by_a_second_look(
    storage: Storage, bucket: str, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlengine.listeners.cleanup_process.time.sleep", lambda _: submit(storage, bucket))
    assert cleanup_process.main() == 0
    assert len(backend.jobs) == 1
    assert backend.live == []


def test_a_job_that_was_found_is_not_looked_at_again(
    storage: Storage, bucket: str, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have cleared the task by then, and its job go on as attempt 2."""
    submit(storage, bucket)
    monkeypatch.setattr("mlengine.listeners.cleanup_process.time.sleep", lambda _: pytest.fail("it waits"))
    assert cleanup_process.main() == 0


def test_what_began_after_the_wait_was_ended_is_left_alone(
    storage: Storage, bucket: str, backend: MemoryBackend, orders: Path
) -> None:
    submit(storage, bucket)
    backend.jobs[0].created = 2000.0
    leave(orders, Order(KEY.digest, backend="memory", begun_before=1000.0))
    assert cleanup_process.main() == 0
    assert len(backend.live) == 1
    leave(orders, Order(KEY.digest, backend="memory", begun_before=3000.0))
    assert cleanup_process.main() == 0
    assert backend.live == []


def test_what_was_carried_out_is_gone_and_what_cannot_be_read_keeps_nobody(
    storage: Storage, bucket: str, backend: MemoryBackend, orders: Path
) -> None:
    submit(storage, bucket)
    (orders / "0.json").write_text("[{")
    assert cleanup_process.main() == 0
    assert backend.live == []
    assert list(orders.glob("*.json")) == []


def test_one_carries_out_all_orders_and_the_others_leave_theirs(
    storage: Storage, bucket: str, backend: MemoryBackend, orders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(storage, bucket)
    really = cleanup_process.end
    came: list[Order] = []

    def end(order: Order) -> bool:
        if not came:
            came.append(order)
            leave(orders, Order("k" * 40, backend="memory"), "2.json")
            assert cleanup_process.main() == 0, "another one: it finds the lock taken"
            assert (orders / "2.json").exists()
        else:
            came.append(order)
        return bool(really(order)) or True

    monkeypatch.setattr(cleanup_process, "end", end)
    assert cleanup_process.main() == 0
    assert [order.key for order in came] == [KEY.digest, "k" * 40]
    assert list(orders.glob("*.json")) == []


def test_whoever_starts_it_does_not_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes, for a local backend's folder without jobs: they go on while their starter has long returned."""
    (tmp_path / "jobs").mkdir()
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "home"))
    children = set(_children())
    begun = time.monotonic()
    for _ in range(5):
        cleanup_process.start([Order("k" * 40, backend="local", backend_options={"state_dir": str(tmp_path)})])
    assert time.monotonic() - begun < 9.0
    assert set(_children()) == children, "nobody has to reap them"
    (folder,) = (tmp_path / "home" / "mlengine" / "orphans").iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    while list(folder.glob("*.json")):
        assert time.monotonic() - begun < 60.0, "nobody carries them out"
        time.sleep(0.1)


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
