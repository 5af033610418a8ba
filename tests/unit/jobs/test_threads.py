"""Calls to a bucket that responds, is busy, or hangs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from mlengine.core.errors import StorageUnavailableError
from mlengine.jobs import threads
from mlengine.jobs.threads import BucketThreads, in_cancel_thread


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """An event for which calls wait; it is set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def test_calls_are_dropped_while_the_bucket_hangs(monkeypatch: pytest.MonkeyPatch, hang: threading.Event) -> None:
    monkeypatch.setattr(threads, "PATIENCE_SECONDS", 0.2)
    pool, made = BucketThreads(1), list[str]()

    async def main() -> list[object]:
        calls = [
            pool.call(hang.wait, 30.0),
            pool.call(made.append, "dropped"),
            pool.call(made.append, "kept", keep=True),
        ]
        found = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5.0)
        hang.set()
        await pool.call(made.append, "next")
        return list(found)

    assert [type(one) for one in asyncio.run(main())] == [StorageUnavailableError] * 3
    assert made == ["kept", "next"], "calls must not pile up, except required ones"


def test_a_call_is_queued_while_the_bucket_responds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "PATIENCE_SECONDS", 0.3)
    pool = BucketThreads(1)

    async def main() -> None:
        await asyncio.gather(*(pool.call(time.sleep, 0.05) for _ in range(20)))

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began >= 1.0


def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(BucketThreads(1).call(divmod, 1, 0))


def test_cancellations_run_concurrently() -> None:
    together = threading.Barrier(40)

    async def main() -> None:
        await asyncio.gather(*(in_cancel_thread(together.wait, 20.0) for _ in range(40)))

    asyncio.run(main())
