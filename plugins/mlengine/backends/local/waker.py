"""A sleep that ends early when a child process ends or a signal arrives."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType


class Waker:
    """Handles the launcher's signals. Create at most one per process, in the main thread.

    ``stopped`` is the name of the signal that stopped the launcher, or empty.
    """

    def __init__(self) -> None:
        self.stopped = ""
        self._read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # The shell that detached the launcher ignores SIGQUIT, and replicas would inherit that.
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)

    def wait(self, seconds: float) -> None:
        """Sleep for ``seconds``, or until the next signal."""
        ready, _, _ = select.select([self._read], [], [], max(0.0, seconds))
        if ready:
            os.read(self._read, 4096)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self.stopped = signal.Signals(number).name
