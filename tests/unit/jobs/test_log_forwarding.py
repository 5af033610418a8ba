"""What a deferred wait keeps of how far it told: never more than is safely in the log."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from mlengine.backends import LogLine, LogPage
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.jobs import log_forwarding
from mlengine.jobs.log_forwarding import Account
from mlengine.jobs.progress import Progress, Told
from mlengine.jobs.watch import Look

HANDLE = JobHandle("memory", "job-1", "j", 1, "gs://bucket/m/j")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("mlengine.jobs.log_forwarding.time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    written: list[Told] = []
    monkeypatch.setattr(log_forwarding, "write_told", lambda storage, handle, told: written.append(told))
    monkeypatch.setattr(log_forwarding, "read_progress", lambda storage, job_dir: Progress(7, 10))
    return written


def look(at: int, state: JobState = JobState.RUNNING) -> Look:
    return Look(JobStatus(HANDLE, state), LogPage((LogLine("chief-0", f"line {at}"),), {"at": at}))


def make(told: Told, pace: float = 0.0) -> Account:
    no_storage: Any = None
    log = logging.getLogger("test")
    return Account(no_storage, HANDLE, told, log, pace=lambda: pace, progress_interval=15.0)


def test_lines_are_kept_as_told_once_they_have_settled(clock: Clock, kept: list[Told]) -> None:
    async def main() -> None:
        telling = make(Told(1))
        for at in range(1, 41):  # a line a second
            await telling.tell(look(at))
            clock.now += 1.0

    asyncio.run(main())
    ats = [told.logs.get("at") for told in kept]
    assert ats == [None, 1, 16], "that somebody tells, at once; lines at least 15 s after they were told"
    assert all(told.open for told in kept)


def test_the_end_is_kept_at_once(clock: Clock, kept: list[Told]) -> None:
    async def main() -> None:
        telling = make(Told(1))
        await telling.tell(look(1))
        await telling.close()

    asyncio.run(main())
    assert [(told.logs.get("at"), told.open) for told in kept] == [(None, True), (1, False)]


def test_who_takes_over_from_one_that_ended_in_order_says_so_before_it_tells(clock: Clock, kept: list[Told]) -> None:
    """Killed soon after, it will have told lines that no note knows of."""

    async def main() -> None:
        telling = make(Told(1, {"at": 7}, open=False))
        assert telling.seconds_to_next() == 0.0
        await telling.tell(None)

    asyncio.run(main())
    assert kept == [Told(1, {"at": 7}, open=True)]


def test_a_thousand_take_their_turns_with_that(clock: Clock, kept: list[Told]) -> None:
    async def main() -> float:
        telling = make(Told(1), pace=50.0)
        telling._share = 0.5
        await telling.tell(look(1))
        return telling.seconds_to_next()

    assert asyncio.run(main()) == 25.0
    assert kept == []


def test_a_wait_that_was_cut_off_is_gone_on_with_in_words(
    clock: Clock, kept: list[Told], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    make(Told(1, open=False))
    assert caplog.messages == []
    make(Told(1, open=True))
    assert "cut off" in caplog.messages[0]


def test_progress_is_read_at_its_pace(clock: Clock, kept: list[Told], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main(pace: float) -> float:
        telling = make(Told(1), pace)
        clock.now += max(pace, 15.0)
        await telling.tell(None)
        return telling.seconds_to_next()

    assert 12.0 <= asyncio.run(main(0.0)) <= 18.0
    assert "step 7 of 10" in caplog.messages[0]
    assert asyncio.run(main(50.0)) <= 60.0
