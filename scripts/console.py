"""The output of `make run`: permanent lines, and a status line at the bottom that is rewritten.

If the output is not a terminal, there are no escape sequences; the status line is printed from time to time as a
permanent line.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from mlengine.jobs import progress

_STATUS_SECONDS = 20.0  # seconds between two printed status lines if the output is not a terminal


class Console:
    """Writes to stdout. ``live`` is true if stdout is a terminal.

    If stdout is closed, for example because ``tee`` has exited, the output is dropped. The run continues and can be
    stopped.
    """

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self._bottom = ""
        self._said_at = float("-inf")

    def say(self, text: str = "") -> None:
        """Print a permanent line."""
        self._erase()
        _write(f"{text}\n")

    def note(self, text: str) -> None:
        """Replace the status line."""
        if text == self._bottom:
            return
        if self.live:
            self._erase()
            _write(text[: shutil.get_terminal_size().columns - 1])
            self._bottom = text
        elif time.monotonic() - self._said_at >= _STATUS_SECONDS:
            self._said_at = time.monotonic()
            self._bottom = text
            _write(f"{text}\n")

    def _erase(self) -> None:
        if self.live and self._bottom:
            _write("\r\033[K")
            self._bottom = ""


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        # The content of the buffer is written again later, at the latest when Python exits. Make that succeed.
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())


class Stopwatch:
    """The time since its creation."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def __str__(self) -> str:
        return duration(self.seconds)


def duration(seconds: float) -> str:
    """Format a duration, such as ``8.3 s`` or ``2 min 05 s``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    return progress.duration(round(seconds))
