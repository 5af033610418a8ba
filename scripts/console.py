"""What `make run` says on the terminal: lines that stay, and one line at the bottom that is rewritten.

Where the output is no terminal there is no line at the bottom, and no escape sequence; what it would have said is
written now and then as a line that stays.
"""

from __future__ import annotations

import shutil
import sys
import time

_NOW_AND_THEN = 20.0  # seconds


class Console:
    """Writes to stdout. ``live`` is whether that is a terminal."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self._bottom = ""
        self._said_at = float("-inf")

    def say(self, text: str = "") -> None:
        """A line that stays."""
        self._erase()
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """What is going on right now; replaces the last note."""
        if text == self._bottom:
            return
        if self.live:
            self._erase()
            sys.stdout.write(text[: shutil.get_terminal_size().columns - 1])
            self._bottom = text
        elif time.monotonic() - self._said_at >= _NOW_AND_THEN:
            self._said_at = time.monotonic()
            self._bottom = text
            sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def _erase(self) -> None:
        if self.live and self._bottom:
            sys.stdout.write("\r\033[K")
            self._bottom = ""


class Stopwatch:
    """Seconds since it was made, for the reader."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def __str__(self) -> str:
        seconds = self.seconds
        return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
