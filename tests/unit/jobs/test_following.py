"""Following a job at a terminal: the log is read as fast as the service allows, and the state is never late."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from mlengine.backends import LogLine, LogPage, Submission
from mlengine.core.errors import BackendUnavailableError, StorageUnavailableError
from mlengine.core.job import JobHandle, JobState
from mlengine.core.spec import TrainingSpec
from mlengine.jobs import following
from mlengine.jobs.following import Followed, LogFollower
from mlengine.testing.backend import MemoryBackend


class Clock:
    """A clock that advances only during a sleep."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(following, "time", made)
    return made


class Logs(MemoryBackend):
    """A backend with a fixed result for each read of the log; the last one is repeated."""

    def __init__(self, clock: Clock, *answers: LogPage | Exception) -> None:
        super().__init__()
        self._clock, self._answers = clock, list(answers)
        self.reads: list[float] = []
        self.ends_at = float("inf")
        self.handle = self.submit(Submission("k", "j", 1, "gs://bucket/m/j", TrainingSpec("trainer.task")))

    def describe(self, handles: Any) -> Any:
        if self._clock.now >= self.ends_at:
            self.end(self.handle.name, JobState.SUCCEEDED)
        return super().describe(handles)

    def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:
        self.reads.append(self._clock.now)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Limited(Logs):
    quiet_log_seconds = 15.0


def page(*texts: str, more: bool = False, wait: float | None = None) -> LogPage:
    return LogPage(tuple(LogLine("chief-0", text) for text in texts), {}, more=more, wait=wait)


def follow(backend: Logs, *, notes: list[str] | None = None, to_end_of_job: bool = True) -> Iterator[Followed]:
    follower = LogFollower(backend, backend.handle, {}, (notes if notes is not None else []).append)
    return follower.follow(to_end_of_job=to_end_of_job)


def texts(followed: list[Followed]) -> list[str]:
    return [line.text for one in followed for line in one.page.lines]


def test_a_throttled_log_does_not_delay_the_state(clock: Clock) -> None:
    backend = Limited(clock, page(wait=40.0), page("last"))
    backend.ends_at = clock.now + 5.0
    seen_at = None
    found = []
    for followed in follow(backend):
        found.append(followed)
        if followed.status.state.terminal and seen_at is None:
            seen_at = clock.now
    assert seen_at is not None
    assert seen_at - backend.ends_at <= following.POLL_SECONDS
    assert texts(found) == ["last"], "the last lines must not be lost"
    assert found[-1].final


def test_the_log_is_read_immediately_after_the_end(clock: Clock) -> None:
    backend = Limited(clock, page(), page(), page(), page("last"))
    backend.ends_at = clock.now + 5.0
    assert texts(list(follow(backend))) == ["last"]
    assert clock.now - backend.ends_at <= following.POLL_SECONDS


def test_a_quiet_log_is_read_less_often_where_reads_are_limited(clock: Clock) -> None:
    made = []
    for kind in (Limited, Logs):
        backend = kind(clock, page())
        backend.ends_at = clock.now + 300.0
        list(follow(backend))
        made.append(len(backend.reads))
    assert made[0] <= 300 / 15 + 6
    assert made[1] >= 290, "the state must be polled every second"


def test_further_lines_are_read_immediately_unless_throttled(clock: Clock) -> None:
    backend = Limited(clock, page("one", more=True), page("two", more=True), page(wait=2.5), page("three"))
    begin = clock.now
    assert texts(list(follow(backend, to_end_of_job=False))) == ["one", "two", "three"]
    assert [moment - begin for moment in backend.reads] == [0.0, 0.0, 0.0, 2.5]
    assert backend.calls.count("describe") == 2, "not with each page, and not while there is only the log to wait for"


@pytest.mark.parametrize("kind", [BackendUnavailableError, StorageUnavailableError])
def test_temporary_log_errors_are_retried_and_reported_once(clock: Clock, kind: type[Exception]) -> None:
    """A backend may keep its logs in the bucket, so errors of the storage are retried too."""
    backend = Limited(clock, *[kind("503")] * 3, page("there"), page())
    backend.ends_at = clock.now + 60.0
    notes: list[str] = []
    assert texts(list(follow(backend, notes=notes))) == ["there"]
    assert notes == ["could not read the log; retrying: 503"]


def test_permanent_log_errors_end_the_command_after_the_job(clock: Clock) -> None:
    backend = Limited(clock, BackendUnavailableError("503"))
    backend.ends_at = clock.now + 1000.0
    with pytest.raises(BackendUnavailableError):
        list(follow(backend))
    assert clock.now >= backend.ends_at
    assert clock.now < backend.ends_at + 2 * following.PATIENCE_SECONDS


def test_an_endless_log_search_ends_the_command(clock: Clock) -> None:
    backend = Limited(clock, page(wait=0.0))
    backend.ends_at = clock.now + 5.0
    with pytest.raises(BackendUnavailableError, match="could not read the log of job j for 180 s"):
        list(follow(backend))
    assert len(backend.reads) < 100


class States(Logs):
    """A backend with a fixed result for each poll of the state; after the last one, the job has succeeded."""

    def __init__(self, clock: Clock, *polls: JobState | Exception) -> None:
        super().__init__(clock, page("one"), page("two"), page())
        self._polls = list(polls)

    def describe(self, handles: Any) -> Any:
        poll = self._polls.pop(0) if self._polls else JobState.SUCCEEDED
        if isinstance(poll, Exception):
            self.calls.append("describe")
            raise poll
        self.jobs[0].state = poll
        return super().describe(handles)


@pytest.mark.parametrize("kind", [BackendUnavailableError, StorageUnavailableError])
def test_temporary_state_errors_are_retried_and_reported_once(clock: Clock, kind: type[Exception]) -> None:
    failures = [kind("503")] * 4
    backend = States(clock, *failures[:1], JobState.RUNNING, *failures[:3])
    begin, notes = clock.now, list[str]()
    followed = list(follow(backend, notes=notes))
    assert [one.status.state for one in followed if one.page.lines] == [JobState.UNKNOWN, JobState.UNKNOWN]
    assert {one.status.state for one in followed[4:-1]} == {JobState.RUNNING}, "the last known state must be used"
    assert followed[-1].status.state is JobState.SUCCEEDED
    assert notes == ["could not read the state; retrying: 503"] * 2
    assert 2.0 + 1.0 + 2.0 + 4.0 + 8.0 <= clock.now - begin <= 25.0, "the pauses must double"


def test_the_log_is_not_waited_for_if_the_state_cannot_be_read(clock: Clock) -> None:
    backend = States(clock, BackendUnavailableError("503"))
    with pytest.raises(BackendUnavailableError):
        list(follow(backend, to_end_of_job=False))


def test_a_finished_job_is_not_polled_again(clock: Clock) -> None:
    """A backend may report UNKNOWN after a failed read, which must not replace a final state."""
    backend = States(clock, JobState.FAILED, JobState.UNKNOWN, JobState.UNKNOWN)
    backend._answers.insert(0, page(wait=5.0))
    followed = list(follow(backend))
    assert {one.status.state for one in followed} == {JobState.FAILED}
    assert texts(followed) == ["one"]


def test_pauses_during_an_outage_are_limited() -> None:
    assert [following.retry_pause(failures) for failures in (1, 2, 5, 6, 5000)] == [2.0, 4.0, 32.0, 60.0, 60.0]
