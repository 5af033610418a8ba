"""Tests tasks of Vertex AI jobs that are killed before and after every side effect of a submission and of a retry.

The processes are the same as in ``test_killed_job_tasks.py``, which tests the local backend. The emulator's jobs are in
memory, so that every submitted job is counted.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends.vertex.backend import VertexBackend
from mlengine.core.job import FailureCause, JobKey, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.jobs.submission import Intent, Submitter
from mlengine.storage.client import Storage
from mlengine.testing import gcs
from mlengine.testing.backend import MemoryBackend, MemoryJob
from mlengine.testing.emulator import RunningEmulator, running
from tests.support import local_jobs as local
from tests.support.task_process import NEVER, TaskProcess, process, report_of

pytestmark = pytest.mark.integration

EFFECTS: Mapping[str, tuple[str, ...]] = {
    "submit": ("write .keep", "write .keep", "create job.json", "create", "replace job.json"),
    # A wait that finds that attempt 1 was interrupted by a lost machine and submits attempt 2.
    "deferrable": ("replace job.json", "create", "replace job.json", "write cursor.json"),
    # A wait that finds that no machines were available and submits attempt 2 in another region.
    "fallback": ("replace job.json", "create", "replace job.json", "write cursor.json"),
}
CAUSES = {"deferrable": FailureCause.PREEMPTED, "fallback": FailureCause.QUOTA}
CASES = [(mode, number) for mode, effects in EFFECTS.items() for number in range(1, len(effects) + 2)]


@dataclass
class Ground:
    """The environment of all cases."""

    service: RunningEmulator
    cloud: MemoryBackend
    storage: Storage
    bucket: str
    package: str
    root: Path
    env: Mapping[str, str]

    def task(self, mode: str, kill_before: int) -> TaskProcess:
        run_id = uuid.uuid4().hex
        job_file = {"trainingInput": {"pythonModule": "tiny.task", "packageUris": [self.package]}}
        report = self.root / f"{run_id}.report"
        more: Any = {"kill_before": kill_before, "backend": "vertex"}
        options = self.service.settings
        if mode == "fallback":
            mode, options = "deferrable", {**options, "fallbacks": [{"region": "europe-west4"}]}
        return TaskProcess(mode, run_id, self.bucket, options, job_file, self.env, report, **more)

    def paid(self, task: TaskProcess) -> list[MemoryJob]:
        """Every job that a run submitted, in order."""
        engine = self.service.server.engine
        engine.refresh(engine.store.all())
        label = f"k{_key(task).digest}"
        return [job for job in self.cloud.jobs if job.submission.labels.get("mlengine-key") == label]

    def regions(self, task: TaskProcess) -> tuple[str, ...]:
        """The regions of those jobs, in the same order."""
        label = f"k{_key(task).digest}"
        records = [one for one in self.service.server.engine.store.all() if one.labels.get("mlengine-key") == label]
        return tuple(one.region for one in sorted(records, key=lambda one: one.created))

    def cut_off(self, task: TaskProcess, cause: FailureCause) -> TaskProcess:
        """A task that waits for a job whose attempt 1 ended a while ago."""
        spec = TrainingSpec("tiny.task", (self.package,))
        job_dir = JobDir.of(self.bucket, "kill", f"j{task.run_id}")
        submitter = Submitter(self.storage, VertexBackend(**self.service.settings))
        handle = submitter.submit(Intent(_key(task), "kill", job_dir, spec)).handle
        (job,) = self.paid(task)
        job.ended = time.time() - 60
        self.cloud.end(job.handle.name, JobState.FAILED, cause)
        return replace(task, job=handle.to_json())

    def end_second_attempts(self, stop: threading.Event) -> None:
        """Let every attempt 2 succeed, so that its wait ends."""
        while not stop.wait(0.05):
            for job in self.cloud.live:
                if job.submission.attempt == 2:
                    self.cloud.end(job.handle.name, JobState.SUCCEEDED)


def _key(task: TaskProcess) -> JobKey:
    return JobKey("kill", task.run_id, "submit", -1, 2)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, gcs_server: gcs.GcsServer) -> Iterator[Ground]:
    before, root = dict(os.environ), tmp_path_factory.mktemp("vertex-kill")
    os.environ.update(gcs_server.env)
    try:
        storage, cloud, name = Storage(), MemoryBackend(), f"kill-{uuid.uuid4().hex[:8]}"
        storage.client.create_bucket(name)
        package = local.put(storage, f"gs://{name}", local.sdist(""))
        with running(root / "emulator", backend=cloud, storage=storage) as service:
            yield Ground(service, cloud, storage, f"gs://{name}", package, root, dict(gcs_server.env))
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass(frozen=True)
class Seen:
    """The outcome of a task that was killed and repeated."""

    exit_code: int | None
    effects: tuple[str, ...]
    result: Mapping[str, Any]
    paid: tuple[tuple[int, JobState], ...]
    regions: tuple[str, ...]


@pytest.fixture(scope="module")
def seen(ground: Ground) -> dict[tuple[str, int], Seen]:
    """All cases; a few run concurrently."""
    stop = threading.Event()
    ender = threading.Thread(target=ground.end_second_attempts, args=(stop,))
    ender.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            return dict(zip(CASES, pool.map(lambda case: _kill_and_repeat(ground, *case), CASES), strict=True))
    finally:
        stop.set()
        ender.join()


def _kill_and_repeat(ground: Ground, mode: str, number: int) -> Seen:
    task = ground.task(mode, NEVER if number > len(EFFECTS[mode]) else number)
    if mode != "submit":
        task = ground.cut_off(task, CAUSES[mode])
    exit_code = process(task)
    effects, _ = report_of(task)
    again = replace(task, kill_before=NEVER, try_number=2, report=task.report.with_suffix(".again"))
    assert process(again) == 0
    _, result = report_of(again)
    paid = tuple((job.submission.attempt, job.state) for job in ground.paid(task))
    return Seen(exit_code, effects, result, paid, ground.regions(task))


@pytest.mark.parametrize(("mode", "number"), CASES)
def test_a_task_killed_before_a_side_effect_is_completed_by_its_retry(
    seen: dict[tuple[str, int], Seen], mode: str, number: int
) -> None:
    case, expected = seen[mode, number], EFFECTS[mode]
    if number > len(expected):
        assert case.exit_code == 0
        assert case.effects[: len(expected)] == expected
    else:
        assert case.exit_code == -signal.SIGKILL
        assert case.effects == expected[: number - 1]
    if mode == "submit":
        assert case.paid == ((1, JobState.QUEUED),)
        assert case.result["attempt"] == 1
    else:
        assert case.paid == ((1, JobState.FAILED), (2, JobState.SUCCEEDED))
        assert (case.result["attempt"], case.result["state"]) == (2, "SUCCEEDED")
        assert case.regions == ("us-central1", "europe-west4" if mode == "fallback" else "us-central1")
