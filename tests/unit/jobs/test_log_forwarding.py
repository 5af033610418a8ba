"""LogForwarder: its output, and a saved cursor that never moves past lines that may not be written yet."""

from __future__ import annotations

import asyncio
import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from mlengine.backends import LogLine, LogPage
from mlengine.core.errors import StorageUnavailableError
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.jobs import log_forwarding
from mlengine.jobs.log_forwarding import LogForwarder
from mlengine.jobs.progress import LogCursor, Progress
from mlengine.jobs.watch import PollResult

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
def saved(monkeypatch: pytest.MonkeyPatch) -> list[LogCursor]:
    written: list[LogCursor] = []
    monkeypatch.setattr(log_forwarding, "write_cursor", lambda storage, handle, cursor: written.append(cursor))
    monkeypatch.setattr(log_forwarding, "read_progress", lambda storage, job_dir: Progress(7, 10))
    return written


def polled(at: int, state: JobState = JobState.RUNNING) -> PollResult:
    return PollResult(JobStatus(HANDLE, state), LogPage((LogLine("chief-0", f"line {at}"),), {"at": at}))


def make(cursor: LogCursor, pace: float = 0.0) -> LogForwarder:
    no_storage: Any = None
    log = logging.getLogger("test")
    return LogForwarder(no_storage, HANDLE, cursor, log, pace=lambda: pace, progress_interval_seconds=15.0)


def test_the_cursor_moves_past_a_line_15_seconds_after_it_was_logged(clock: Clock, saved: list[LogCursor]) -> None:
    async def main() -> None:
        forwarder = make(LogCursor(1))
        for at in range(1, 41):  # one line per second
            await forwarder.forward(polled(at))
            clock.now += 1.0

    asyncio.run(main())
    ats = [cursor.logs.get("at") for cursor in saved]
    assert ats == [None, 1, 16], "the first save must show immediately that a wait is logging"
    assert all(cursor.open for cursor in saved)


def test_closing_saves_the_cursor_immediately(clock: Clock, saved: list[LogCursor]) -> None:
    async def main() -> None:
        forwarder = make(LogCursor(1))
        await forwarder.forward(polled(1))
        await forwarder.close()

    asyncio.run(main())
    assert [(cursor.logs.get("at"), cursor.open) for cursor in saved] == [(None, True), (1, False)]


def test_a_resumed_wait_saves_an_open_cursor_before_it_logs(clock: Clock, saved: list[LogCursor]) -> None:
    """If it is killed soon after, it has logged lines that no saved cursor covers."""

    async def main() -> None:
        forwarder = make(LogCursor(1, {"at": 7}, open=False))
        assert forwarder.seconds_to_next() == 0.0
        await forwarder.forward(None)

    asyncio.run(main())
    assert saved == [LogCursor(1, {"at": 7}, open=True)]


def test_many_waits_save_their_cursors_in_turns(clock: Clock, saved: list[LogCursor]) -> None:
    async def main() -> float:
        forwarder = make(LogCursor(1), pace=50.0)
        forwarder._share = 0.5
        await forwarder.forward(polled(1))
        return forwarder.seconds_to_next()

    assert asyncio.run(main()) == 25.0
    assert saved == []


def test_after_an_interruption_the_log_says_that_lines_may_repeat(
    clock: Clock, saved: list[LogCursor], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    make(LogCursor(1, open=False))
    assert caplog.messages == []
    make(LogCursor(1, open=True))
    assert "recent lines may repeat" in caplog.messages[0]


def test_progress_is_read_at_its_interval(
    clock: Clock, saved: list[LogCursor], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main(pace: float) -> float:
        forwarder = make(LogCursor(1), pace)
        clock.now += max(pace, 15.0)
        await forwarder.forward(None)
        return forwarder.seconds_to_next()

    assert 12.0 <= asyncio.run(main(0.0)) <= 18.0
    assert "step 7 of 10" in caplog.messages[0]
    assert asyncio.run(main(50.0)) <= 60.0


def test_with_many_waits_the_first_save_contains_the_first_lines(clock: Clock, saved: list[LogCursor]) -> None:
    async def main() -> None:
        forwarder = make(LogCursor(1), pace=50.0)
        forwarder._share = 0.0
        await forwarder.forward(polled(1))
        clock.now += 14.0
        await forwarder.forward(None)
        assert saved == [], "the cursor must not pass a line that may not have been written yet"
        clock.now += 1.0
        await forwarder.forward(None)
        clock.now += 1000.0
        await forwarder.forward(None)

    asyncio.run(main())
    # The second one is for the progress line.
    assert [(cursor.logs.get("at"), cursor.open) for cursor in saved][:1] == [(1, True)]
    assert len(saved) <= 2


def test_with_many_waits_the_progress_of_a_quiet_job_is_read_less_often(
    clock: Clock, saved: list[LogCursor], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[float] = []

    def read(*_: Any) -> None:
        reads.append(clock.now)

    async def main(pace: float, state: JobState, *, lines: bool) -> int:
        reads.clear()
        forwarder = make(LogCursor(1), pace)
        await forwarder.forward(polled(0, state))
        for at in range(1, 1001):
            clock.now += 1.0
            await forwarder.forward(polled(at, state) if lines and at % 10 == 0 else None)
        return len(reads)

    monkeypatch.setattr(log_forwarding, "read_progress", read)
    assert 50 <= asyncio.run(main(0.0, JobState.RUNNING, lines=False)) <= 85, (
        "with few waits, progress must be read at its interval"
    )
    assert 5 <= asyncio.run(main(50.0, JobState.RUNNING, lines=False)) <= 9
    assert 15 <= asyncio.run(main(50.0, JobState.RUNNING, lines=True)) <= 26, (
        "the progress of a job that logs must be read"
    )
    assert asyncio.run(main(0.0, JobState.QUEUED, lines=False)) == 0


def test_a_pending_write_does_not_overwrite_the_last_cursor(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[LogCursor] = []
    begun, over = threading.Event(), threading.Event()

    def write_cursor(storage: object, handle: JobHandle, cursor: LogCursor) -> None:
        if not begun.is_set():
            begun.set()
            over.wait(30)
        written.append(cursor)

    monkeypatch.setattr(log_forwarding, "write_cursor", write_cursor)
    monkeypatch.setattr(log_forwarding, "read_progress", lambda storage, job_dir: None)

    async def main() -> None:
        forwarder = make(LogCursor(1))
        task = asyncio.ensure_future(forwarder.forward(polled(1)))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        asyncio.get_running_loop().call_later(0.2, over.set)
        await forwarder.close()

    asyncio.run(main())
    assert [(cursor.logs, cursor.open) for cursor in written] == [({}, True), ({"at": 1}, False)]


def test_a_write_that_hangs_blocks_only_one_thread(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, over = threading.Event(), threading.Event()

    def write_cursor(storage: object, handle: JobHandle, cursor: LogCursor) -> None:
        begun.set()
        over.wait(30)

    monkeypatch.setattr(log_forwarding, "write_cursor", write_cursor)
    forwarder = make(LogCursor(1))
    first = threading.Thread(target=forwarder._write, args=(LogCursor(1), 1, False))
    first.start()
    assert begun.wait(30)
    with pytest.raises(StorageUnavailableError, match="is still in progress"):
        forwarder._write(LogCursor(1), 2, False)
    over.set()
    first.join()
