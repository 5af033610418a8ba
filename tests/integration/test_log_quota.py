"""Tests Cloud Logging's read quota, and searches that take several calls, on the emulator over HTTP."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends import LogLine, LogPage, Submission
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.core.job import JobHandle, JobState
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.jobs.polling import Poller
from mlengine.jobs.progress import read_cursor
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from mlengine.testing.emulator import RunningEmulator, running
from mlengine.triggers import training_job
from mlengine.triggers.training_job import TrainingJobTrigger

pytestmark = pytest.mark.integration
LOGS = "ListLogEntries"
CLI = "import sys; from mlengine.cli import main; sys.exit(main())"
OPTIONS: list[dict[str, Any]] = [
    {},
    {"machine_type": "n1-standard-8"},
    {"spot": True},
    {"labels": {"team": "vision"}},
    {"boot_disk_gb": 200},
    {"env": {"A": "b"}},
]


class Talking(MemoryBackend):
    """A backend whose jobs all have the same lines."""

    lines: tuple[str, ...] = ()

    def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:
        at = int(cursor.get("at", 0))
        found = self.lines[at:]
        return LogPage(tuple(LogLine("chief-0", text) for text in found), {"at": at + len(found)})


@pytest.fixture
def memory() -> Talking:
    return Talking()


@pytest.fixture
def service(
    memory: Talking, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningEmulator]:
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(training_job, "EARLIEST_EVENT_SECONDS", 0.0)
    with running(tmp_path / "emulator", backend=memory, storage=storage) as started:
        for name, value in started.env.items():
            monkeypatch.setenv(name, value)
        yield started


def submit(service: RunningEmulator, memory: Talking, bucket: str, number: int = 0) -> JobHandle:
    spec = TrainingSpec("trainer.task", pools=(Pool(Role.CHIEF, 1, "n1-standard-4"),))
    job_id = f"job_{number}"
    submission = Submission(f"{number:040d}", job_id, 1, f"{bucket}/mnist/{job_id}", spec)
    handle = VertexBackend(**service.settings).submit(submission)
    until = time.monotonic() + 60.0
    while len(memory.jobs) <= number:
        assert time.monotonic() < until
        time.sleep(0.05)
    return handle


def trigger(handle: JobHandle, options: Mapping[str, Any] | None = None) -> TrainingJobTrigger:
    return TrainingJobTrigger(
        handle=handle.to_json(), gcp_conn_id=None, backend_options=dict(options or {}), poll_interval_seconds=0.2
    )


async def ended(one: TrainingJobTrigger) -> tuple[dict[str, Any], float]:
    async for event in one.run():
        return dict(event.payload), time.monotonic()
    raise AssertionError("a trigger without an event")


def use_up(service: RunningEmulator) -> None:
    """Use up the quota, as other clients may."""
    service.script(LOGS, "quota", per_minute=1)
    service.server.script.match(LOGS, service.project)


def test_a_job_end_is_noticed_promptly_while_others_use_up_the_log_quota(
    service: RunningEmulator, memory: Talking, bucket: str
) -> None:
    handle = submit(service, memory, bucket)
    use_up(service)

    async def main() -> tuple[dict[str, Any], float]:
        wait = asyncio.create_task(ended(trigger(handle)))
        await asyncio.sleep(1.0)
        began = time.monotonic()
        memory.end(memory.jobs[0].handle.name, JobState.SUCCEEDED)
        event, at = await asyncio.wait_for(wait, 60.0)
        return event, at - began

    event, seconds = asyncio.run(main())
    assert event["state"] == "SUCCEEDED"
    assert seconds < 20.0, "the wait must not last until the quota is refilled"
    assert service.calls.count(LOGS) <= 3, "a 429 without Retry-After is backed off from"


def test_jobs_with_different_options_share_one_log_request(
    service: RunningEmulator, memory: Talking, bucket: str
) -> None:
    handles = [submit(service, memory, bucket, number) for number in range(len(OPTIONS))]
    memory.lines = ("one", "two")

    async def main() -> int:
        waits = [asyncio.create_task(ended(trigger(*pair))) for pair in zip(handles, OPTIONS, strict=True)]
        await asyncio.sleep(2.0)
        pollers = len(Poller._pollers[asyncio.get_running_loop()])
        for job in memory.jobs:
            memory.end(job.handle.name, JobState.SUCCEEDED)
        await asyncio.wait_for(asyncio.gather(*waits), 60.0)
        return pollers

    before = len(service.calls)
    assert asyncio.run(main()) == 1
    made = service.calls[before:]
    assert made.count(LOGS) <= made.count("ListCustomJobs") + 4, "there must not be a request for each set of options"
    for handle in handles:
        cursor = read_cursor(Storage(), handle)
        assert cursor.state == "SUCCEEDED"
        assert len(cursor.logs["window"]) >= 2, "the job's own lines and the emulator's are expected"


def test_the_configured_request_budget_applies_to_all_readers(
    service: RunningEmulator, memory: Talking, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The readers are a poller, and two followers in separate processes."""
    monkeypatch.setenv("AIRFLOW__MLENGINE__VERTEX_LOG_READS_PER_MINUTE", "20")
    service.script(LOGS, "quota", per_minute=20)
    handle = submit(service, memory, bucket)
    memory.lines = ("one", "two")
    follow = [sys.executable, "-c", CLI, "jobs", "logs", "--follow", "--backend", "vertex", handle.name]
    before = service.calls.count(LOGS)
    followers = [subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in "ab"]

    async def main() -> float:
        wait = asyncio.create_task(ended(trigger(handle)))
        await asyncio.sleep(6.0)
        began = time.monotonic()
        memory.end(memory.jobs[0].handle.name, JobState.SUCCEEDED)
        return (await asyncio.wait_for(wait, 60.0))[1] - began

    assert asyncio.run(main()) < 30.0
    outputs = [follower.communicate(timeout=1500)[0] for follower in followers]
    assert [output.count("| one") for output in outputs] == [1, 1], outputs
    assert [follower.returncode for follower in followers] == [0, 0]
    (file,) = (tmp_path / "state" / "log-reads").iterdir()
    state = json.loads(file.read_text())
    assert state["throttled_at"] == 0.0, "the quota was never exceeded"
    assert service.calls.count(LOGS) - before >= 4


@pytest.mark.parametrize("empty", [1, 12])
def test_incomplete_log_searches_neither_lose_nor_repeat_lines(
    service: RunningEmulator, memory: Talking, bucket: str, empty: int
) -> None:
    handle = submit(service, memory, bucket)
    memory.lines = tuple(f"line {number}" for number in range(40))
    service.script(LOGS, "empty", times=empty)
    vertex = VertexBackend(**service.settings)
    seen: list[str] = []
    cursor: Mapping[str, Any] = {}
    while True:
        page = vertex.logs(handle, cursor, 15)
        seen += [line.text for line in page.lines if line.replica == "chief-0"]
        cursor = page.cursor
        if page.complete:
            break
    assert seen == list(memory.lines)
    assert service.calls.count(LOGS) <= empty + 6
