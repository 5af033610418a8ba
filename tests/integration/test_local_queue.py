"""Tests more jobs than the machine has room for: they run in order of submission, and none starves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.core.job import FailureCause, JobHandle, JobState
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration
Make = Callable[..., LocalBackend]


def submit(backend: LocalBackend, bucket: str, actor: str, number: int, act: str) -> JobHandle:
    return backend.submit(
        local.submission(bucket, local.spec(actor, args=local.acts(chief=act)), key=str(number).ljust(40, "0"))
    )


def test_the_queue_runs_two_jobs_at_a_time_in_order(
    make_backend: Make, actor: str, bucket: str, tmp_path: Path
) -> None:
    start_file, order = tmp_path / "start_file", tmp_path / "order"
    backend = make_backend(max_concurrent_jobs=2)
    act = f"""
        with open({str(order)!r}, 'a') as file: file.write(os.environ['CLOUD_ML_JOB_ID'] + '\\n')
        until({str(start_file)!r})
    """
    handles = [submit(backend, bucket, actor, 100 + number, act) for number in range(20)]
    local.until(lambda: order.exists() and len(order.read_text().split()) == 2, "two jobs run")
    local.until(
        lambda: all(
            f"place {place} in" in status.detail for place, status in enumerate(backend.describe(handles[2:]), 1)
        ),
        "every queued job shows its place",
    )
    states = [status.state for status in backend.describe(handles)]
    assert states == [JobState.RUNNING] * 2 + [JobState.QUEUED] * 18
    # The memory used by the 18 launchers that wait.
    memory = [_kilobytes(local.launcher_pid(backend, handle)) for handle in handles[2:]]
    assert sum(memory) / len(memory) < 40_000
    # This test does not need the rest of the queue: cancel it while it waits.
    for handle in handles[8:]:
        backend.cancel(handle)
    start_file.touch()
    ended = [local.until_ended(backend, handle).state for handle in handles]
    assert ended == [JobState.SUCCEEDED] * 8 + [JobState.CANCELLED] * 12
    # Two jobs run at once, so neighbours may swap while they start; no other reordering is allowed.
    ran = order.read_text().split()
    asked = [handle.job_id for handle in handles[:8]]
    assert sorted(ran) == sorted(asked)
    assert all(abs(ran.index(job) - place) <= 1 for place, job in enumerate(asked))


def _kilobytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def test_a_lost_job_frees_its_slot(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend(max_concurrent_jobs=1)
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say('training'); time.sleep(3600)"
    first = submit(backend, bucket, actor, 1, deaf)
    local.until(lambda: "chief-0: training" in local.texts(backend, first), "training")
    second = submit(backend, bucket, actor, 2, "")
    local.until(lambda: "place 1" in local.describe(backend, second).detail, "the second job is queued")
    pid = local.launcher_pid(backend, first)
    os.kill(pid, signal.SIGKILL)
    # Nothing polls the first job: the second one reaps its processes and takes its place.
    assert local.until_ended(backend, second).state is JobState.SUCCEEDED
    assert not local.alive(backend, first)
    failure = local.describe(backend, first).failure
    assert failure is not None
    assert failure.cause is FailureCause.LOST


def test_a_job_that_exceeds_max_wait_seconds_fails(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend(max_concurrent_jobs=1)
    submit(backend, bucket, actor, 1, "time.sleep(3600)")
    spec = local.spec(actor, max_wait_seconds=1)
    handle, status = local.run(backend, bucket, spec, key="w" * 40)
    assert status.failure is not None
    assert status.failure.cause is FailureCause.DEADLINE
    assert "waited for more than 1 s" in status.detail
    assert handle.attempt == 1
