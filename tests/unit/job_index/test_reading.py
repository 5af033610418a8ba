"""Reading the row of a job."""

from __future__ import annotations

from typing import Any

from mlengine.core.job import JobStatus
from mlengine.job_index.reading import describe


class Silent:
    name = "silent"

    def describe(self, handles: Any) -> list[JobStatus]:
        raise AssertionError("nothing may be requested")


def test_the_backend_is_not_queried_for_no_jobs() -> None:
    assert describe(Silent(), []) == {}  # type: ignore[arg-type]
