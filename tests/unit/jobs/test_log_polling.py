"""Logs are polled independently of states: no log read can delay the news that a job has ended."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from mlengine.backends import LogLine, LogPage, Submission
from mlengine.core.job import JobHandle, JobState
from mlengine.core.spec import TrainingSpec
from mlengine.jobs import watch as watches
from mlengine.jobs.log_polling import MAX_SEARCH_CALLS
from mlengine.jobs.polling import Poller
from mlengine.jobs.watch import PollResult, PollWarning, Watch
from mlengine.testing.backend import MemoryBackend


class Batching(MemoryBackend):
    """A backend that reads the logs of three jobs in one call, with a read function of the test."""

    logs_at_once = 3
    quiet_log_seconds = 0.2

    def __init__(self, read: Callable[[JobHandle, Mapping[str, Any]], LogPage]) -> None:
        super().__init__()
        self.read = read
        self.batches: list[list[str]] = []
        self.urgent: list[bool] = []

    def logs_many(
        self, wanted: Sequence[tuple[JobHandle, Mapping[str, Any]]], limit: int = 1000, *, urgent: bool = False
    ) -> list[LogPage]:
        self.batches.append([handle.name for handle, _ in wanted])
        self.urgent.append(urgent)
        return [self.read(handle, cursor) for handle, cursor in wanted]


def submit(backend: MemoryBackend, count: int = 1) -> list[JobHandle]:
    spec = TrainingSpec("trainer.task")
    return [backend.submit(Submission(f"k{n}", f"j{n}", 1, f"gs://bucket/m/j{n}", spec)) for n in range(count)]


def empty(_: JobHandle, cursor: Mapping[str, Any]) -> LogPage:
    return LogPage((), cursor)


async def until_end(watch: Watch) -> tuple[list[JobState], list[str], float]:
    """The states and lines until the end of the wait, and the time of its last event."""
    states: list[JobState] = []
    lines: list[str] = []
    while True:
        news = await watch.next(30.0)
        assert news is not None
        if isinstance(news, PollWarning):
            continue
        states.append(news.status.state)
        lines += [line.text for line in news.page.lines]
        if news.status.state.terminal and not news.page.more:
            return states, lines, time.monotonic()


def poller(backend: MemoryBackend, interval: float = 0.02) -> Poller:
    return Poller.shared("backend", lambda: backend, interval)


def test_a_throttled_log_read_does_not_delay_the_end_of_the_wait() -> None:
    backend = Batching(lambda _, cursor: LogPage((), cursor, wait=60.0))
    (handle,) = submit(backend)

    async def main() -> tuple[list[str], float]:
        async with poller(backend).watch(handle, {}) as watch:
            assert isinstance(await watch.next(30.0), PollResult)
            await asyncio.sleep(0.1)
            backend.end(handle.name, JobState.SUCCEEDED)
            began = time.monotonic()
            _, lines, ended = await until_end(watch)
            return lines, ended - began

    lines, seconds = asyncio.run(main())
    assert seconds < 20.0, "the wait must not take the full 60 s"
    assert "mlengine jobs logs j0" in lines[-1]
    assert len(backend.batches) == 2, "the log must be read at the start and for the last lines"
    assert backend.urgent == [False, True]


def test_a_log_read_that_hangs_does_not_delay_the_end_of_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "ANNOUNCE_SECONDS", 0.1)
    monkeypatch.setattr(watches, "LAST_LINES_SECONDS", 0.5)
    continue_reading = threading.Event()

    def hang(handle: JobHandle, cursor: Mapping[str, Any]) -> LogPage:
        continue_reading.wait(30.0)
        return LogPage((), cursor)

    backend = Batching(hang)
    (handle,) = submit(backend)

    async def main() -> list[JobState]:
        async with poller(backend).watch(handle, {}) as watch:
            assert isinstance(await watch.next(30.0), PollResult)
            backend.jobs[0].state = JobState.RUNNING
            running = await watch.next(30.0)
            assert isinstance(running, PollResult)
            backend.end(handle.name, JobState.FAILED)
            states, _, _ = await until_end(watch)
            continue_reading.set()
            return [running.status.state, *states]

    states = asyncio.run(main())
    assert states == [JobState.RUNNING, JobState.FAILED, JobState.FAILED], (
        "the warning and the recovery must be reported"
    )
    assert len(backend.batches) == 1


def test_the_last_lines_precede_the_end_even_during_a_read() -> None:
    """A read that began before the end may lack the last lines, so another one follows."""
    reading, continue_reading = threading.Event(), threading.Event()
    written = ["one"]

    def read(_: JobHandle, cursor: Mapping[str, Any]) -> LogPage:
        at = int(cursor.get("at", 0))
        found = written[at:]
        if not reading.is_set():
            reading.set()
            continue_reading.wait(30.0)
        return LogPage(tuple(LogLine("chief-0", text) for text in found), {"at": at + len(found)})

    backend = Batching(read)
    (handle,) = submit(backend)

    async def main() -> tuple[list[str], list[JobState]]:
        async with poller(backend).watch(handle, {}) as watch:
            await asyncio.to_thread(reading.wait, 30.0)
            written.append("two")
            backend.end(handle.name, JobState.SUCCEEDED)
            while watch.ended_at is None:
                await asyncio.sleep(0.01)
            continue_reading.set()
            states, lines, _ = await until_end(watch)
            return lines, states

    lines, states = asyncio.run(main())
    assert lines == ["one", "two"]
    assert states[-1] is JobState.SUCCEEDED


def test_a_long_log_is_read_completely_after_the_job() -> None:
    def read(_: JobHandle, cursor: Mapping[str, Any]) -> LogPage:
        at = int(cursor.get("at", 0)) + 1
        return LogPage((LogLine("chief-0", str(at)),), {"at": at}, more=at < 50)

    backend = Batching(read)
    (handle,) = submit(backend)
    backend.end(handle.name, JobState.SUCCEEDED)

    async def main() -> list[str]:
        async with poller(backend, 5.0).watch(handle, {}) as watch:
            return (await asyncio.wait_for(until_end(watch), 4.0))[1]

    assert asyncio.run(main()) == [str(number) for number in range(1, 51)]


def test_a_long_log_delays_the_end_by_a_minute_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "LAST_LINES_SECONDS", 0.1)
    monkeypatch.setattr(watches, "ALL_LINES_SECONDS", 0.4)
    backend = Batching(lambda _, cursor: LogPage((LogLine("chief-0", "again"),), cursor, more=True))
    (handle,) = submit(backend)
    backend.end(handle.name, JobState.SUCCEEDED)

    async def main() -> list[str]:
        async with poller(backend).watch(handle, {}) as watch:
            return (await asyncio.wait_for(until_end(watch), 4.0))[1]

    assert "could not be read" in asyncio.run(main())[-1]


def test_a_search_continues_with_the_same_jobs_for_some_time() -> None:
    backend = Batching(lambda _, cursor: LogPage((), {"search": "x"}, wait=0.0))
    handles = submit(backend, 6)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            for handle in handles:
                await stack.enter_async_context(poller(backend).watch(handle, {}))
            while len(backend.batches) < 3 * MAX_SEARCH_CALLS:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 20.0))
    runs = [1]
    for before, after in zip(backend.batches, backend.batches[1:], strict=False):
        if before == after:
            runs[-1] += 1
        else:
            runs.append(1)
    assert max(runs) <= MAX_SEARCH_CALLS, runs
    assert len({tuple(batch) for batch in backend.batches}) >= 2, "the other jobs must be read next"


def test_a_quiet_log_is_read_less_often() -> None:
    backend = Batching(empty)
    (handle,) = submit(backend)

    async def main() -> None:
        async with poller(backend, 0.01).watch(handle, {}):
            while len(backend.batches) < 8:
                await asyncio.sleep(0.01)

    began = time.monotonic()
    asyncio.run(asyncio.wait_for(main(), 60.0))
    assert time.monotonic() - began >= 0.5, "pauses of 0.01, 0.02, … 0.2 s"


def test_a_new_wait_does_not_have_to_wait_for_a_quiet_log() -> None:
    backend = Batching(lambda handle, _: LogPage((LogLine("chief-0", "hello"),) if handle.job_id == "j1" else (), {}))
    backend.quiet_log_seconds = 600.0
    first, second = submit(backend, 2)

    async def main() -> None:
        async with poller(backend, 0.05).watch(first, {}):
            await asyncio.sleep(0.5)
            async with poller(backend, 0.05).watch(second, {}) as watch:
                while not (isinstance(news := await watch.next(5.0), PollResult) and news.page.lines):
                    assert news is not None

    asyncio.run(main())


def test_an_unreadable_log_does_not_delay_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "LAST_LINES_SECONDS", 1.0)

    def read(handle: JobHandle, cursor: Mapping[str, Any]) -> LogPage:
        if handle.job_id == "j1":
            raise ValueError("Unterminated string")
        at = int(cursor.get("at", 0))
        return LogPage((LogLine("chief-0", "hello"),)[at:], {"at": 1})

    backend = Batching(read)
    handles = submit(backend, 3)

    async def main() -> list[list[str]]:
        shared = poller(backend)
        async with AsyncExitStack() as stack:
            waits = [await stack.enter_async_context(shared.watch(handle, {})) for handle in handles]
            await asyncio.sleep(0.5)
            assert len(backend.batches) < 60, "with pauses"
            for handle in handles:
                backend.end(handle.name, JobState.SUCCEEDED)
            return [(await until_end(watch))[1] for watch in waits]

    first, bad, last = asyncio.run(asyncio.wait_for(main(), 20.0))
    assert first == last == ["hello"]
    assert "mlengine jobs logs j1" in bad[-1]


def test_ends_of_jobs_do_not_increase_the_rate_of_failing_reads() -> None:
    def fail(*_: Any) -> LogPage:
        raise ConnectionError("down")

    backend = Batching(fail)
    handles = submit(backend, 30)

    async def main() -> None:
        shared = poller(backend, 0.05)
        async with AsyncExitStack() as stack:
            waits = [await stack.enter_async_context(shared.watch(handle, {})) for handle in handles]
            while len(backend.batches) < 3:
                await asyncio.sleep(0.01)
            for handle, watch in zip(handles, waits, strict=True):
                backend.end(handle.name, JobState.SUCCEEDED)
                shared.poll_soon()
                while watch.ended_at is None:
                    await asyncio.sleep(0.01)
        assert len(backend.batches) <= 10

    asyncio.run(main())
