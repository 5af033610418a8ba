"""Poller: one poll for all waiting jobs; a failed poll does not change a state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from mlengine.backends import LogLine, LogPage, Submission
from mlengine.core.errors import BackendError
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.core.spec import TrainingSpec
from mlengine.jobs.polling import Poller
from mlengine.jobs.watch import PollResult, PollWarning
from mlengine.testing.backend import MemoryBackend


class WithLogs(MemoryBackend):
    """A backend in which each job has a fixed list of log lines, two per page."""

    lines: tuple[str, ...] = ("one", "two", "three", "four", "five")

    def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 2) -> LogPage:
        start = int(cursor.get("at", 0))
        texts = self.lines[start : start + 2]
        end = start + len(texts)
        lines = tuple(LogLine("chief-0", text) for text in texts)
        return LogPage(lines, {"at": end}, more=end < len(self.lines))


def submit(backend: MemoryBackend, count: int) -> list[JobHandle]:
    spec = TrainingSpec("trainer.task")
    return [backend.submit(Submission(f"k{n}", f"j{n}", 1, f"gs://bucket/m/j{n}", spec)) for n in range(count)]


async def results(poller: Poller, handle: JobHandle, cursor: Mapping[str, Any]) -> AsyncIterator[PollResult]:
    async with poller.watch(handle, cursor) as watch:
        while True:
            polled = await watch.next(30.0)
            assert polled is not None
            if isinstance(polled, PollWarning):
                continue
            yield polled
            if polled.status.state.terminal and not polled.page.more:
                return


async def states(poller: Poller, handle: JobHandle) -> list[JobState]:
    return [polled.status.state async for polled in results(poller, handle, {})]


@pytest.mark.parametrize("count", [1, 100])
def test_a_tick_polls_all_jobs_with_one_call(count: int) -> None:
    backend = MemoryBackend()
    handles = submit(backend, count)

    async def main() -> None:
        poller = Poller.shared("backend", lambda: backend, 0.02)
        waits = [asyncio.create_task(states(poller, handle)) for handle in handles]
        await asyncio.sleep(0.2)
        for handle in handles:
            backend.end(handle.name, JobState.SUCCEEDED)
        assert {seen[-1] for seen in await asyncio.gather(*waits)} == {JobState.SUCCEEDED}

    asyncio.run(main())
    describes = backend.calls.count("describe")
    assert 2 <= describes <= 40, "the number of calls must not depend on the number of jobs"


def test_a_failed_poll_changes_no_outcome() -> None:
    backend = MemoryBackend()
    (handle,) = submit(backend, 1)
    backend.refuse = 3
    backend.end(handle.name, JobState.SUCCEEDED)

    async def main() -> list[JobState]:
        return await states(Poller.shared("backend", lambda: backend, 0.01), handle)

    assert asyncio.run(main()) == [JobState.SUCCEEDED]


def test_an_unexpected_exception_changes_no_outcome() -> None:
    backend = MemoryBackend()
    (handle,) = submit(backend, 1)
    backend.end(handle.name, JobState.SUCCEEDED)
    attempts = []

    def make() -> MemoryBackend:
        attempts.append(1)
        if len(attempts) < 3:
            raise RuntimeError("no such connection")
        return backend

    async def main() -> list[JobState]:
        return await states(Poller.shared("backend", make, 0.01), handle)

    assert asyncio.run(main()) == [JobState.SUCCEEDED]
    assert len(attempts) == 3


def test_a_job_that_cannot_be_described_does_not_delay_others() -> None:
    class Refusing(MemoryBackend):
        def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
            if any(handle.job_id == "j3" for handle in handles):
                self.calls.append("refused")
                raise BackendError("not the name of a job")
            return super().describe(handles)

    backend = Refusing()
    handles = submit(backend, 20)

    async def main() -> tuple[str, int]:
        poller = Poller.shared("backend", lambda: backend, 0.02)
        async with poller.watch(handles[3], {}) as bad:
            waits = [asyncio.create_task(states(poller, handle)) for handle in handles if handle is not handles[3]]
            await asyncio.sleep(0.2)
            for handle in handles:
                backend.end(handle.name, JobState.SUCCEEDED)
            assert {seen[-1] for seen in await asyncio.gather(*waits)} == {JobState.SUCCEEDED}
            warning = await bad.next(1.0)
            assert isinstance(warning, PollWarning)
            refused = backend.calls.count("refused")
            await asyncio.sleep(0.2)
            return warning.message, backend.calls.count("refused") - refused

    message, more = asyncio.run(asyncio.wait_for(main(), 20.0))
    assert "not the name of a job" in message
    assert more <= 10, "a failing job must be polled less and less often"


def test_the_wait_is_warned_of_failed_polls_and_of_the_recovery() -> None:
    backend = MemoryBackend()
    (handle,) = submit(backend, 1)
    backend.refuse = 4

    async def main() -> list[str]:
        async with Poller.shared("backend", lambda: backend, 0.01).watch(handle, {}) as watch:
            warnings = []
            while not isinstance(news := await watch.next(30.0), PollResult):
                assert news is not None
                warnings.append(news.message)
            return warnings

    first, last = asyncio.run(main())
    assert first == "Polling the job failed; retrying: describe: come back later"
    assert "works again after 4 failures" in last


@pytest.mark.parametrize("ended", [True, False])
def test_an_unreadable_log_does_not_delay_the_state(monkeypatch: pytest.MonkeyPatch, ended: bool) -> None:
    class Mute(MemoryBackend):
        def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:
            raise PermissionError("logging.logEntries.list")

    monkeypatch.setattr("mlengine.jobs.watch.LAST_LINES_SECONDS", 0.3)
    backend = Mute()
    (handle,) = submit(backend, 1)
    if ended:
        backend.end(handle.name, JobState.SUCCEEDED)

    async def main() -> tuple[list[str], PollResult]:
        async with Poller.shared("backend", lambda: backend, 0.01).watch(handle, {}) as watch:
            warnings = []
            while not (isinstance(news := await watch.next(30.0), PollResult) and not news.page.more):
                assert news is not None
                if isinstance(news, PollWarning):
                    warnings.append(news.message)
            return warnings, news

    warnings, polled = asyncio.run(main())
    assert "logEntries" in warnings[0]
    assert polled.status.state is (JobState.SUCCEEDED if ended else JobState.QUEUED)
    assert ["could not be read" in line.text for line in polled.page.lines] == [True] * ended
    assert len(backend.calls) < 100, "with pauses"


def test_every_log_line_is_delivered_once_and_before_the_end() -> None:
    backend = WithLogs()
    (handle,) = submit(backend, 1)
    backend.end(handle.name, JobState.SUCCEEDED)

    async def main() -> list[str]:
        poller = Poller.shared("backend", lambda: backend, 5.0)
        return [line.text async for polled in results(poller, handle, {"at": 1}) for line in polled.page.lines]

    assert asyncio.run(asyncio.wait_for(main(), 4)) == ["two", "three", "four", "five"]


def test_a_watch_that_has_ended_is_not_polled() -> None:
    backend = MemoryBackend()
    first, second = submit(backend, 2)
    backend.end(first.name, JobState.SUCCEEDED)

    async def main() -> int:
        poller = Poller.shared("backend", lambda: backend, 0.01)
        await states(poller, first)
        kept = asyncio.create_task(states(poller, second))
        await asyncio.sleep(0.05)
        kept.cancel()
        await asyncio.gather(kept, return_exceptions=True)
        await asyncio.sleep(0.05)
        calls = len(backend.calls)
        await asyncio.sleep(0.1)
        return len(backend.calls) - calls

    assert asyncio.run(main()) == 0


def test_each_backend_has_one_poller() -> None:
    async def main() -> tuple[bool, bool]:
        one = Poller.shared("a", MemoryBackend, 1.0)
        return one is Poller.shared("a", MemoryBackend, 1.0), one is Poller.shared("b", MemoryBackend, 1.0)

    assert asyncio.run(main()) == (True, False)


def test_only_changes_wake_a_wait() -> None:
    backend = MemoryBackend()
    (handle,) = submit(backend, 1)

    async def main() -> tuple[int, int]:
        woken = 0
        async with Poller.shared("backend", lambda: backend, 0.01).watch(handle, {}) as watch:
            while await watch.next(0.2) is not None:
                woken += 1
        return woken, backend.calls.count("describe")

    woken, asked = asyncio.run(main())
    assert woken == 1, "the state must not change while it cannot be read"
    assert asked > 1


def test_a_thousand_waits_share_the_rate_of_calls_to_the_bucket() -> None:
    backend = MemoryBackend()
    handles = submit(backend, 1000)

    async def main() -> tuple[float, float]:
        poller = Poller.shared("backend", lambda: backend, 1.0)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(poller.watch(handles[0], {}))
            alone = poller.pace()
            for handle in handles[1:]:
                await stack.enter_async_context(poller.watch(handle, {}))
            return alone, poller.pace()

    assert asyncio.run(main()) == (0.0, 50.0)


def test_the_interval_of_a_finished_wait_no_longer_applies() -> None:
    async def intervals() -> list[float]:
        backend = MemoryBackend()
        (handle,) = submit(backend, 1)
        found = []
        async with Poller.shared("backend", lambda: backend, 1.0).watch(handle, {}):
            found.append(Poller.shared("backend", lambda: backend, 60.0)._interval)
        found.append(Poller.shared("backend", lambda: backend, 60.0)._interval)
        return found

    assert asyncio.run(intervals()) == [1.0, 60.0]


def test_a_poll_can_be_made_before_its_interval() -> None:
    backend = MemoryBackend()
    (handle,) = submit(backend, 1)

    async def main() -> JobState:
        poller = Poller.shared("backend", lambda: backend, 600.0)
        async with poller.watch(handle, {}) as watch:
            assert isinstance(await watch.next(30.0), PollResult)
            backend.end(handle.name, JobState.SUCCEEDED)
            poller.poll_soon()
            polled = await watch.next(30.0)
            assert isinstance(polled, PollResult)
            return polled.status.state

    assert asyncio.run(main()) is JobState.SUCCEEDED


def test_a_job_that_has_ended_keeps_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend may report UNKNOWN after a failed read while the last lines cannot be read yet."""

    class Unreadable(MemoryBackend):
        def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:
            if self.calls.count("describe") == 1:
                raise PermissionError("not yet")
            return LogPage((LogLine("chief-0", "last"),), {"at": 1})

        def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
            statuses = super().describe(handles)
            seen = self.calls.count("describe") > 1
            return [replace(status, state=JobState.UNKNOWN) if seen else status for status in statuses]

    monkeypatch.setattr("mlengine.jobs.watch.LAST_LINES_SECONDS", 2.0)
    backend = Unreadable()
    (handle,) = submit(backend, 1)
    backend.end(handle.name, JobState.FAILED)

    async def main() -> list[PollResult]:
        poller = Poller.shared("backend", lambda: backend, 0.01)
        return [polled async for polled in results(poller, handle, {})]

    polled = asyncio.run(asyncio.wait_for(main(), 10.0))
    assert {one.status.state for one in polled} == {JobState.FAILED}
    assert [line.text for one in polled for line in one.page.lines] == ["last"]


def test_a_throttled_log_is_not_read_early() -> None:
    class Limited(MemoryBackend):
        def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:
            first = "logs" not in self.calls
            super().logs(handle, cursor)
            return LogPage((), cursor, wait=0.5) if first else LogPage((LogLine("chief-0", "last"),), cursor)

    backend = Limited()
    (handle,) = submit(backend, 1)
    backend.end(handle.name, JobState.SUCCEEDED)

    async def main() -> list[str]:
        poller = Poller.shared("backend", lambda: backend, 5.0)
        return [line.text async for polled in results(poller, handle, {}) for line in polled.page.lines]

    began = time.monotonic()
    assert asyncio.run(asyncio.wait_for(main(), 4.0)) == ["last"], "the end must be noticed before the next tick"
    assert time.monotonic() - began >= 0.5
    assert backend.calls.count("logs") == 2
    assert backend.calls.count("describe") <= 4
