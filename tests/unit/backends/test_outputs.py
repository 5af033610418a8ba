"""The check of a succeeded job's outputs must not slow down a poll."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlengine.backends.outputs import PAUSE_SECONDS, OutputCheck
from mlengine.core.errors import StorageError
from mlengine.core.job import JobHandle


class Unreadable:
    def __init__(self) -> None:
        self.calls = 0

    def ls(self, prefix: str) -> list[Any]:
        self.calls += 1
        raise StorageError(f"cannot list {prefix}")


def test_after_an_error_no_bucket_is_listed_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("mlengine.backends.outputs.time", SimpleNamespace(monotonic=lambda: now))
    storage = Unreadable()
    check = OutputCheck(lambda: storage)
    jobs = [JobHandle("vertex", f"job-{number}", str(number), 1, f"gs://bkt/m/{number}") for number in range(100)]
    assert {check.message(job) for job in jobs} == {""}
    assert storage.calls == 1
    now += PAUSE_SECONDS
    check.message(jobs[0])
    assert storage.calls == 2
