"""Reading the rows of jobs."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.core.errors import BackendError, BackendUnavailableError
from mlengine.core.job import JobRecord, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.job_index.reading import Claimed, describe


class Silent:
    name = "silent"

    def describe(self, handles: Any) -> list[JobStatus]:
        raise AssertionError("nothing may be requested")


def test_the_backend_is_not_queried_for_no_jobs() -> None:
    assert describe(Silent(), []) == {}  # type: ignore[arg-type]


class Strict:
    """A backend that rejects all jobs if one of them is invalid."""

    name = "strict"

    def __init__(self, error: Exception, bad: set[str]) -> None:
        self._error, self._bad = error, bad
        self.calls = 0

    def describe(self, handles: Any) -> list[JobStatus]:
        self.calls += 1
        if any(handle.name in self._bad for handle in handles):
            raise self._error
        return [JobStatus(handle, JobState.RUNNING) for handle in handles]


def claims(count: int) -> list[Claimed]:
    return [
        Claimed(JobDir(f"gs://bkt/m/m_{at}"), JobRecord("k", f"m_{at}", "m", "strict", {}, name=f"job-{at}"), 1)
        for at in range(count)
    ]


@pytest.mark.parametrize("error", [BackendError("no such name"), ValueError("no number"), AttributeError("split")])
def test_a_bad_record_hides_only_the_status_of_its_job(error: Exception) -> None:
    backend: Any = Strict(error, {"job-3", "job-70"})
    found = describe(backend, claims(100))
    missing = {f"gs://bkt/m/m_{at}" for at in range(100)} - found.keys()
    assert missing == {"gs://bkt/m/m_3", "gs://bkt/m/m_70"}
    assert backend.calls < 30


def test_a_failing_backend_is_not_called_for_each_job() -> None:
    backend: Any = Strict(BackendError("403"), {f"job-{at}" for at in range(100)})
    assert describe(backend, claims(100)) == {}
    assert backend.calls < 20
    down: Any = Strict(BackendUnavailableError("503"), {"job-3"})
    assert describe(down, claims(100)) == {}
    assert down.calls == 1
