"""Threads in which waits call the bucket and cancel jobs, so that a triggerer's event loop never blocks.

There are only a few threads for the bucket, because they share the interpreter with the event loop. A thousand waits
use them. If the bucket hangs, no wait is delayed by more than :data:`PATIENCE_SECONDS`, and calls do not accumulate.

Cancellations have separate threads, enough that none waits for another, because each job that is not cancelled is
billed.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mlengine.core.errors import StorageUnavailableError

PATIENCE_SECONDS = 5.0

T = TypeVar("T")


class BucketThreads:
    """A small pool of threads for small calls to the bucket. Calls are made in the order of their arrival.

    :param count: the number of concurrent calls.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="mlengine-bucket")
        self._answered_at = -math.inf

    def start(self, call: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """Start a call in a thread, without a time limit."""
        return asyncio.wrap_future(self._pool.submit(self._timed, call, *arguments))

    async def call(self, call: Callable[..., T], *arguments: object, keep: bool = False) -> T:
        """Make a call in a thread, and wait for it as long as the bucket responds. With many calls, it may be queued.

        :param keep: make the call even after its caller has stopped waiting. Otherwise, a call that has not begun is
            dropped.
        :raises StorageUnavailableError: neither this call nor any other has been answered for :data:`PATIENCE_SECONDS`.
        """
        future = self.start(call, *arguments)
        future.add_done_callback(_retrieve_error)
        began = time.monotonic()
        try:
            while not future.done():
                left = max(began, self._answered_at) + PATIENCE_SECONDS - time.monotonic()
                if left <= 0:
                    raise StorageUnavailableError(f"the bucket has not responded for {PATIENCE_SECONDS:.0f} s")
                await asyncio.wait({future}, timeout=left)
            return future.result()
        finally:
            if not keep:
                future.cancel()

    def _timed(self, call: Callable[..., T], *arguments: object) -> T:
        began = time.monotonic()
        try:
            return call(*arguments)
        finally:
            now = time.monotonic()
            if now - began < PATIENCE_SECONDS:
                self._answered_at = now


def _retrieve_error(future: asyncio.Future[T]) -> None:
    """Retrieve a future's error, because asyncio would log the error of a call whose caller has stopped waiting."""
    if not future.cancelled():
        future.exception()


BUCKET = BucketThreads(4)
_CANCELLATIONS = ThreadPoolExecutor(64, thread_name_prefix="mlengine-cancel")


async def in_cancel_thread(call: Callable[..., T], *arguments: object) -> T:
    """Make a call that cancels a job, or that decides whether to, in a thread for cancellations."""
    return await asyncio.get_running_loop().run_in_executor(_CANCELLATIONS, call, *arguments)
