"""The check of succeeded jobs' outputs must not slow down a poll."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mlengine.backends.outputs import PAUSE_SECONDS, THREADS, OutputCheck, warning
from mlengine.core.errors import StorageError
from mlengine.core.job import JobHandle

JOBS = [JobHandle("vertex", f"job-{number}", str(number), 1, f"gs://bkt/m/{number}") for number in range(100)]


class Unreadable:
    def __init__(self) -> None:
        self.calls = 0

    def ls(self, prefix: str) -> list[Any]:
        self.calls += 1
        raise StorageError(f"cannot list {prefix}")


class Slow:
    """A storage whose listings are empty and block until ``go_on`` is set. Counts all calls and concurrent calls."""

    def __init__(self) -> None:
        self.prefixes: list[str] = []
        self.running = self.most = 0
        self.continue_listing = threading.Event()
        self.full = threading.Event()
        self._lock = threading.Lock()

    def ls(self, prefix: str) -> Sequence[Any]:
        with self._lock:
            self.prefixes.append(prefix)
            self.running += 1
            self.most = max(self.most, self.running)
            if self.running == THREADS:
                self.full.set()
        assert self.continue_listing.wait(60)
        with self._lock:
            self.running -= 1
        return []


def test_no_bucket_is_listed_for_some_time_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("mlengine.backends.outputs.time", SimpleNamespace(monotonic=lambda: now))
    storage = Unreadable()
    check = OutputCheck(lambda: storage)
    check.run(JOBS, 60.0)
    assert {check.message(job) for job in JOBS} == {""}
    assert 1 <= storage.calls <= THREADS
    before = storage.calls
    check.run(JOBS, 60.0)
    assert storage.calls == before
    now += PAUSE_SECONDS
    check.run(JOBS[:1], 60.0)
    assert storage.calls == before + 1


def test_an_error_does_not_block_the_caller() -> None:
    def open_storage() -> Any:
        raise RuntimeError("no credentials")

    check = OutputCheck(open_storage)
    began = time.monotonic()
    check.run(JOBS, 60.0)
    assert time.monotonic() - began < 30.0
    assert check.message(JOBS[0]) == ""


def test_jobs_that_end_together_are_checked_once_and_concurrently() -> None:
    storage = Slow()
    check = OutputCheck(lambda: storage)
    check.run(JOBS, 0.01)
    check.run(JOBS, 0.01)
    assert {check.message(job) for job in JOBS} == {""}, "a poll must not wait for the listings"
    assert storage.full.wait(60), "this many folders must be listed concurrently"
    storage.continue_listing.set()
    check.run(JOBS, 60.0)
    assert {check.message(job) for job in JOBS} == {warning(None)}
    assert storage.most == THREADS
    assert len(storage.prefixes) == len(set(storage.prefixes)) == 3 * len(JOBS), "each folder must be listed once"
