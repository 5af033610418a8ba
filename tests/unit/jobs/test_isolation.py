"""One invalid job fails no call for others, and during an outage the jobs are not requested one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mlengine.core.errors import BackendError, BackendUnavailableError
from mlengine.jobs.isolation import Retry, call_for_each


class Service:
    """A service that doubles numbers, but fails a call that contains a number of ``bad``."""

    def __init__(self, *bad: int, error: Exception | None = None) -> None:
        self.bad, self.error, self.calls = set(bad), error or ValueError("corrupt"), 0

    def double(self, numbers: Sequence[int]) -> list[int]:
        self.calls += 1
        if self.bad & set(numbers):
            raise self.error
        return [2 * number for number in numbers]


def test_a_successful_call_is_made_once() -> None:
    service = Service()
    assert call_for_each(service.double, [1, 2, 3]) == [2, 4, 6]
    assert service.calls == 1


@pytest.mark.parametrize("bad", [(0,), (149,), (70, 71, 72), tuple(range(20))])
def test_the_jobs_that_cause_an_error_are_found(bad: tuple[int, ...]) -> None:
    service = Service(*bad)
    found = call_for_each(service.double, range(150))
    assert {number for number, one in enumerate(found) if one is service.error} == set(bad)
    assert all(one == 2 * number for number, one in enumerate(found) if number not in bad)
    assert service.calls <= 1 + 2 * 8 * len(bad)


@pytest.mark.parametrize("error", [BackendUnavailableError("503"), ConnectionError("refused"), TimeoutError()])
def test_an_outage_takes_one_call(error: Exception) -> None:
    service = Service(7, error=error)
    with pytest.raises(type(error)):
        call_for_each(service.double, range(150))
    assert service.calls == 1


def test_an_error_of_all_jobs_takes_few_calls() -> None:
    service = Service(*range(1000))
    with pytest.raises(ValueError, match="corrupt"):
        call_for_each(service.double, range(1000))
    assert service.calls <= 25


def test_a_retry_waits_longer_after_each_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlengine.jobs.isolation.time.monotonic", lambda: 100.0)
    retry, pauses = Retry(), []
    for _ in range(6):
        retry.failed(5.0)
        pauses.append(retry.seconds_left)
    assert pauses == [10.0, 20.0, 40.0, 60.0, 60.0, 60.0]
    assert not retry.due
    retry.succeeded()
    assert retry.due


def test_a_job_without_a_result_is_reported_as_the_cause() -> None:
    """A backend may omit jobs that it does not know."""
    found = call_for_each(lambda jobs: [job for job in jobs if job != 3], range(6))
    assert [type(one) for one in found] == [int, int, int, BackendError, int, int]
    assert str(found[3]).startswith("the backend returned 0 results for 1 jobs")
