"""Jobs of the ray backend for tests: submissions of :data:`~tests.support.local_jobs.ACTOR`, their states and logs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from mlengine.backends import LogLine, Submission
from mlengine.backends.ray.backend import RayBackend
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.core.spec import Pool, Role, TrainingSpec
from tests.support import local_jobs

WAIT = 300.0
POLL_SECONDS = 0.3  # each poll costs CPU time in several processes of Ray's dashboard
QUICK: dict[str, Any] = {
    "termination_grace_seconds": 2.0,
    "linger_seconds": 2.0,
    "restart_backoff_seconds": 0.1,
    "max_restarts": 0,
    "max_chief_restarts": 0,
    "lost_seconds": 0.0,
    "join_seconds": 0.0,
}


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait like :func:`local_jobs.until`, with a timeout that suits a cluster on a busy machine."""
    return local_jobs.until(condition, what, WAIT, pause=POLL_SECONDS)


def submission(uri: str, bucket: str, *args: str, **more: Any) -> Submission:
    """A submission with a new key unless one is given."""
    key = more.pop("key", None) or uuid.uuid4().hex
    pools = more.pop("pools", (Pool(Role.CHIEF, 1),))
    attempt = more.pop("attempt", 1)
    spec = TrainingSpec("tiny.task", (uri,), args, pools=pools, **more)
    return Submission(key, "mnist_1", attempt, f"{bucket}/mnist/mnist_1", spec)


def wait(ray: RayBackend, handle: JobHandle, *states: JobState, seconds: float = WAIT) -> JobStatus:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        status = ray.describe([handle])[0]
        if status.state in states or (status.state.terminal and not states):
            return status
        assert not status.state.terminal, (status, all_lines(ray, handle))
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"{handle.name} is still {status.state}: {status.detail}; {all_lines(ray, handle)}")


def all_lines(ray: RayBackend, handle: JobHandle) -> list[LogLine]:
    lines: list[LogLine] = []
    cursor: dict[str, Any] = {}
    while True:
        page = ray.logs(handle, cursor, limit=7)
        lines += page.lines
        cursor = dict(page.cursor)
        if not page.more:
            return lines
