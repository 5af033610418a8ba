"""Splits the output of a process into lines, as it arrives."""

from __future__ import annotations

import time

from mlengine.core import plaintext

_PARTIAL = 64 << 10  # a line longer than this is split
_STATE_SECONDS = 5.0  # time between two states of a progress bar in the log


class Lines:
    """The output of one process, or of several processes that run one after the other."""

    def __init__(self) -> None:
        self._rest = b""
        self._next_state = 0.0

    def add(self, data: bytes, *, ended: bool = False) -> list[str]:
        """The lines that ``data`` completes. A line that a progress bar overwrites may be returned several times.

        While a progress bar changes, its latest state is returned as a line from time to time.

        :param ended: whether there is no more output, so that the last line is complete.
        """
        *complete, self._rest = (self._rest + data).split(b"\n")
        if self._rest and (ended or len(self._rest) >= _PARTIAL):
            complete.append(self._rest)
            self._rest = b""
        lines: list[str] = []
        for raw in complete:
            lines += plaintext.states(raw.decode("utf-8", "replace"))
        if (shown := plaintext.overwritten(self._rest)) and time.monotonic() >= self._next_state:
            lines += plaintext.states(self._rest[:shown].decode("utf-8", "replace"))[-1:]
            self._rest = self._rest[shown:]
            self._next_state = time.monotonic() + _STATE_SECONDS
        return [plaintext.line(line) for line in lines]
