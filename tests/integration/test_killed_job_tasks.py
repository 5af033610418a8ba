"""Kills real processes before and after each numbered side effect of ``docs/architecture.md``.

A task's process is ended by SIGKILL just before its n-th side effect; then the task runs again, as Airflow would run
it. For every n, at most one job runs at a time, each attempt is submitted once, and the job ends as it should.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.core.job import Failure, FailureCause, JobHandle, JobKey, JobState, JobStatus
from mlengine.core.layout import JobDir, package_uri
from mlengine.core.spec import TrainingSpec
from mlengine.jobs.submission import Intent, Submitter
from mlengine.runtime import json_files
from mlengine.storage.client import Storage
from mlengine.testing import gcs
from tests.support.idle_trainer import idle_trainer
from tests.support.task_process import NEVER, TaskProcess, process, report_of

pytestmark = pytest.mark.integration

# The side effects of one undisturbed task, in order. The numbers are those in docs/architecture.md.
EFFECTS: Mapping[str, tuple[str, ...]] = {
    "submit": (
        "write .keep",  # 2
        "write .keep",  # 2
        "create job.json",  # 3
        "store",  # 5
        "launch",  # 5
        "replace job.json",  # 7
    ),
    # A wait that finds that attempt 1 was interrupted by a lost machine and submits attempt 2.
    "deferrable": (
        "replace job.json",  # 8
        "store",  # 5
        "launch",  # 5
        "replace job.json",  # 7
        "write cursor.json",  # 9
        "replace job.json",  # 10
    ),
    "poke": (
        "write cursor.json",  # 9
        "replace job.json",  # 8
        "store",  # 5
        "launch",  # 5
        "replace job.json",  # 7
        "replace job.json",  # 10
    ),
}
CASES = [(mode, number) for mode, effects in EFFECTS.items() for number in range(1, len(effects) + 2)]


@dataclass(frozen=True)
class Seen:
    """The outcome of a task that was killed and repeated."""

    exit_code: int | None
    effects: tuple[str, ...]
    result: Mapping[str, Any]
    attempts: tuple[JobStatus, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Ground:
    """The environment of all cases."""

    bucket: str
    storage: Storage
    root: Path
    package: str
    env: Mapping[str, str]

    @property
    def options(self) -> dict[str, Any]:
        return {
            "state_dir": str(self.root / "state"),
            "max_concurrent_jobs": 100,
            "log_upload_timeout_seconds": 0,
            "termination_grace_seconds": 1.0,
        }

    @property
    def job_file(self) -> dict[str, Any]:
        return {
            "trainingInput": {
                "pythonModule": "idle_trainer",
                "packageUris": [self.package],
                "args": ["--until", str(self.root / "end")],
            }
        }

    def task(self, mode: str, **more: Any) -> TaskProcess:
        run_id = uuid.uuid4().hex
        return TaskProcess(
            mode, run_id, self.bucket, self.options, self.job_file, self.env, self.root / f"{run_id}.report", **more
        )

    def cut_off(self, task: TaskProcess) -> JobHandle:
        """A job whose only attempt was preempted, created without actually running it."""
        backend = LocalBackend(**self.options)
        backend._launch = lambda job: None  # type: ignore[method-assign]
        spec = TrainingSpec("idle_trainer", args=("--until", str(self.root / "end")), package_uris=(self.package,))
        intent = Intent(
            JobKey("kill", task.run_id, "submit", -1, 2),
            "kill",
            JobDir.of(self.bucket, "kill", f"j{task.run_id}"),
            spec,
        )
        handle = Submitter(self.storage, backend).submit(intent).handle
        failure = Failure(FailureCause.PREEMPTED, "chief-0 received SIGTERM", "chief-0", 143)
        state = {"state": "FAILED", "detail": failure.message, "failure": failure.to_json(), "ended": time.time() - 60}
        json_files.write_json(backend._job(handle.name).state_file, state)
        return handle


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, gcs_server: gcs.GcsServer) -> Ground:
    before = dict(os.environ)
    os.environ.update(gcs_server.env)
    try:
        storage = Storage()
        name = f"kill-{uuid.uuid4().hex[:8]}"
        storage.client.create_bucket(name)
        package = package_uri(f"gs://{name}", "idle_trainer", "1", "idle_trainer.tar.gz")
        storage.write(package, idle_trainer())
        root = tmp_path_factory.mktemp("kill")
        (root / "end").write_text("0")
        env = {**gcs_server.env, "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(root / "uv"))}
        return Ground(f"gs://{name}", storage, root, package, env)
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def seen(ground: Ground) -> dict[tuple[str, int], Seen]:
    """All cases; a few run concurrently."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(CASES, pool.map(lambda case: _kill_and_repeat(ground, *case), CASES), strict=True))


def _kill_and_repeat(ground: Ground, mode: str, number: int) -> Seen:
    last = number > len(EFFECTS[mode])
    task = ground.task(mode, kill_before=NEVER if last else number)
    backend = LocalBackend(**ground.options)
    if mode == "submit":
        key = JobKey("kill", task.run_id, "submit", -1, 2).digest
    else:
        handle = ground.cut_off(task)
        task = replace(task, job=handle.to_json())
        key = JobKey("kill", task.run_id, "submit", -1, 2).digest
    exit_code = process(task)
    effects, _ = report_of(task)
    again = replace(task, kill_before=NEVER, try_number=2, report=task.report.with_suffix(".again"))
    assert process(again) == 0
    _, result = report_of(again)
    deadline = time.monotonic() + 120
    attempts = backend.describe(backend.find(key))
    while any(not one.state.terminal for one in attempts) and time.monotonic() < deadline:
        time.sleep(0.1)
        attempts = backend.describe(backend.find(key))
    starts = tuple(_starts(backend, one.handle) for one in attempts)
    return Seen(exit_code, effects, result, tuple(attempts), starts)


def _starts(backend: LocalBackend, handle: JobHandle) -> int:
    """How often the chief of an attempt was started."""
    return sum("says hello" in line.text for line in backend.logs(handle, {}).lines if line.replica == "chief-0")


@pytest.mark.parametrize(("mode", "number"), CASES)
def test_a_task_killed_before_a_side_effect_is_completed_by_its_retry(
    seen: dict[tuple[str, int], Seen], mode: str, number: int
) -> None:
    case = seen[mode, number]
    expected = EFFECTS[mode]
    if number > len(expected):
        assert case.exit_code == 0
        assert case.effects == expected, "docs/architecture.md and this test number the side effects"
    else:
        assert case.exit_code == -signal.SIGKILL
        assert case.effects == expected[: number - 1]
    attempts = [(one.handle.attempt, one.state) for one in case.attempts]
    if mode == "submit":
        assert attempts == [(1, JobState.SUCCEEDED)], case.attempts
        assert case.starts == (1,)
        assert case.result["attempt"] == 1
    else:
        assert attempts == [(1, JobState.FAILED), (2, JobState.SUCCEEDED)], case.attempts
        assert case.starts == (0, 1), "attempt 1 must not be started again"
        assert (case.result["attempt"], case.result["state"]) == (2, "SUCCEEDED")
