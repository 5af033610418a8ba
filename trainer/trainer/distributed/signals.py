"""SIGTERM as a request: the running loop decides when to stop."""

from __future__ import annotations

import faulthandler
import signal
import threading
from types import FrameType


class Stop:
    """A flag that SIGTERM sets, and that ends ``sleep`` early."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._handle)
        if hasattr(signal, "SIGUSR1"):  # to debug a hang: prints the stacks of all threads to stderr
            faulthandler.register(signal.SIGUSR1)

    @property
    def asked(self) -> bool:
        return self._event.is_set()

    def sleep(self, seconds: float) -> None:
        self._event.wait(seconds)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._event.set()
