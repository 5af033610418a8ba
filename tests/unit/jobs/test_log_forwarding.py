"""LogForwarder: its output, and a saved cursor that never moves past lines that may not be written yet."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from mlengine.backends import LogLine, LogPage
from mlengine.core.errors import StorageUnavailableError
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.jobs import log_channel, log_forwarding
from mlengine.jobs.log_channel import LogChannel
from mlengine.jobs.log_forwarding import LogForwarder
from mlengine.jobs.progress import LogCursor, Progress
from mlengine.jobs.watch import PollResult

HANDLE = JobHandle("memory", "job-1", "j", 1, "gs://bucket/m/j")


needs_unread_bytes = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux counts the unread bytes of a socket"
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (log_forwarding, log_channel):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[LogCursor]:
    written: list[LogCursor] = []
    monkeypatch.setattr(log_forwarding, "write_cursor", lambda storage, handle, cursor: written.append(cursor))
    monkeypatch.setattr(log_forwarding, "read_progress", lambda storage, job_dir: Progress(7, 10))
    return written


def polled(at: int, state: JobState = JobState.RUNNING) -> PollResult:
    return PollResult(JobStatus(HANDLE, state), LogPage((LogLine("chief-0", f"line {at}"),), {"at": at}))


def make(cursor: LogCursor, pace: float = 0.0, *, channel: LogChannel | None = None, log: Any = None) -> LogForwarder:
    no_storage: Any = None
    log = log or logging.getLogger("test")
    channel = channel or LogChannel(None)
    return LogForwarder(no_storage, HANDLE, cursor, log, channel, pace=lambda: pace, progress_interval_seconds=15.0)


@dataclass
class Channel:
    """A real channel, and the end of the process that reads it."""

    sender: socket.socket
    receiver: socket.socket

    @property
    def channel(self) -> LogChannel:
        return LogChannel(self.sender.fileno())

    def log(self, _level: int, format_: str, *arguments: object) -> None:
        """Log a line."""
        self.sender.sendall((format_ % arguments + "\n").encode())

    def read(self) -> str:
        """Everything that was logged since the last call."""
        self.receiver.setblocking(False)
        text = b""
        while not text.endswith(b"\n"):
            text += self.receiver.recv(1 << 20)
        return text.decode()


@pytest.fixture
def channel() -> Iterator[Channel]:
    sender, receiver = socket.socketpair()
    with sender, receiver:
        yield Channel(sender, receiver)


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
        await forwarder.close(30.0)

    asyncio.run(main())
    assert [(cursor.logs.get("at"), cursor.open) for cursor in saved] == [(None, True), (1, False)]


@needs_unread_bytes
def test_the_cursor_does_not_move_past_lines_that_were_not_read(
    clock: Clock, saved: list[LogCursor], channel: Channel
) -> None:
    """The process that writes the log has stalled, for example because its database does not respond."""
    unread: list[list[Any]] = []

    async def main() -> None:
        forwarder = make(LogCursor(1), channel=channel.channel, log=channel)
        for at in range(1, 41):
            await forwarder.forward(polled(at))
            clock.now += 1.0
        unread.append([cursor.logs.get("at") for cursor in saved])
        await forwarder.forward(None)
        assert 0.0 < forwarder.seconds_to_next() <= 1.0, "it must check again"
        channel.read()
        clock.now += 1.0
        await forwarder.forward(polled(41))

    asyncio.run(main())
    assert unread == [[None]]
    ats = [cursor.logs.get("at") for cursor in saved]
    assert ats == [None, 1], "the lines until the 15 s before the check were read"


@needs_unread_bytes
def test_a_wait_whose_last_lines_are_not_read_leaves_its_cursor_open(saved: list[LogCursor], channel: Channel) -> None:
    async def main() -> None:
        forwarder = make(LogCursor(1), channel=channel.channel, log=channel)
        await forwarder.forward(polled(1))
        await forwarder.close(0.2)
        assert [(cursor.logs.get("at"), cursor.open) for cursor in saved] == [(None, True)]
        channel.read()
        await forwarder.close(30.0)

    asyncio.run(main())
    assert [(cursor.logs.get("at"), cursor.open) for cursor in saved] == [(None, True), (1, False)]


@needs_unread_bytes
def test_lines_for_which_the_socket_has_no_room_are_logged_later(
    saved: list[LogCursor], channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket holds a few hundred lines. Sending more to a process that does not read would block all waits."""
    monkeypatch.setattr(log_forwarding, "FLUSH_SECONDS", 0.0)
    channel.sender.settimeout(0.0)
    lines = tuple(LogLine("chief-0", f"line {number}") for number in range(2000))
    page = LogPage(lines, {"at": 1})
    texts: list[str] = []

    def read_all() -> None:
        while data := channel.receiver.recv(1 << 16):
            texts.append(data.decode())

    async def main() -> None:
        forwarder = make(LogCursor(1), channel=channel.channel, log=channel)
        await forwarder.forward(PollResult(JobStatus(HANDLE, JobState.RUNNING), page))
        for _ in range(10):
            await forwarder.forward(None)
        assert forwarder.seconds_to_next() == 1.0, "a thousand waits must not try it all the time"
        assert [cursor.logs for cursor in saved] == [{}], "the cursor must not move past lines that it keeps"
        await forwarder.close(0.1)
        assert len(saved) == 1
        reader = threading.Thread(target=read_all)
        reader.start()
        while saved[-1].logs != {"at": 1}:
            await asyncio.sleep(min(0.1, forwarder.seconds_to_next()))
            await forwarder.forward(None)
        await forwarder.close(30.0)
        channel.sender.shutdown(socket.SHUT_WR)
        reader.join()

    asyncio.run(main())
    assert (saved[-1].logs, saved[-1].open) == ({"at": 1}, False)
    found = "".join(texts).splitlines()
    assert [line for line in found if "line" in line] == [f"    chief-0 | line {number}" for number in range(2000)]


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
        await forwarder.close(30.0)

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
