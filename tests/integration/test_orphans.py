"""What is done with the jobs of a run that is over, in the process that the listener starts."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mlengine import backends, connect, orphans
from mlengine.core.job import JobKey, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.orphans import Order
from mlengine.storage import Storage
from mlengine.submission import Intent, Submitter, ended_with_task
from mlengine.testing.backend import MemoryBackend

pytestmark = pytest.mark.integration

current = MemoryBackend()
KEY = JobKey("dag", "run", "submit")


def the_backend(**_: Any) -> MemoryBackend:
    return current


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, storage: Storage) -> MemoryBackend:
    global current  # noqa: PLW0603 the registry makes backends by import path
    assert storage
    current = MemoryBackend()
    backends.register("memory", f"{__name__}:the_backend")
    connect.connect_storage.cache_clear()
    monkeypatch.setenv("MLENGINE_ORPHANS", json.dumps([asdict(Order(KEY.digest, backend="memory"))]))
    return current


def submit(storage: Storage, bucket: str) -> JobDir:
    job_dir = JobDir.of(bucket, "m", "j")
    Submitter(storage, current).submit(Intent(KEY, "m", job_dir, TrainingSpec("trainer.task")))
    return job_dir


def test_what_lives_is_ended_and_noted(storage: Storage, bucket: str, backend: MemoryBackend) -> None:
    job_dir = submit(storage, bucket)
    assert orphans.main() == 0
    assert backend.live == []
    assert ended_with_task(Submitter(storage, backend).record(job_dir))


def test_a_run_that_only_waits_names_the_job_dir(
    storage: Storage, bucket: str, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_dir = submit(storage, bucket)
    monkeypatch.setenv("MLENGINE_ORPHANS", json.dumps([asdict(Order(job_dir=job_dir.uri, backend="memory"))]))
    assert orphans.main() == 0
    assert backend.live == []


def test_what_has_ended_is_left_alone(storage: Storage, bucket: str, backend: MemoryBackend) -> None:
    submit(storage, bucket)
    backend.end("job-1", JobState.SUCCEEDED)
    assert orphans.main() == 0
    assert "cancel" not in backend.calls


def test_a_submission_that_was_on_its_way_is_found_by_a_second_look(
    storage: Storage, bucket: str, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlengine.orphans.time.sleep", lambda _: submit(storage, bucket))
    assert orphans.main() == 0
    assert len(backend.jobs) == 1
    assert backend.live == []


def test_a_job_that_was_found_is_not_looked_at_again(
    storage: Storage, bucket: str, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have cleared the task by then, and its job go on as attempt 2."""
    submit(storage, bucket)
    monkeypatch.setattr("mlengine.orphans.time.sleep", lambda _: pytest.fail("it waits"))
    assert orphans.main() == 0


def test_whoever_starts_it_does_not_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real process, for a local backend's folder without jobs: it goes on while its starter has long returned."""
    (tmp_path / "jobs").mkdir()
    children = set(_children())
    begun = time.monotonic()
    orphans.start([Order("k" * 40, backend="local", backend_options={"state_dir": str(tmp_path)})])
    assert time.monotonic() - begun < 9.0
    assert set(_children()) == children, "nobody has to reap it"


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
