"""The socket over which triggers' log lines reach the process that writes them to the tasks' logs.

Airflow's triggerer consists of two processes. Triggers run in one of them. The other one writes their lines, and reads
at most 4 KiB of them between two rounds of database queries (Airflow 3.3.2). So on a busy machine, or while the
database does not respond, lines stay in the socket for a long time. Then

* a triggerer that is killed never writes them,
* lines of a trigger that has ended meanwhile go to the triggerer's own log,
* and once the socket is full, logging blocks all triggers.

The kernel counts the bytes that were not read yet, so a wait can see when its lines have been read. It sends lines only
while the socket has room for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import select
import stat
import struct
import sys
import termios
import time
from collections import deque
from typing import Any

# The pauses between two attempts to send lines. They double while the socket has no room.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0


class LogChannel:
    """How far the lines that this process has logged were read.

    :param descriptor: the file descriptor of the socket; ``None`` if lines are not sent over a socket, or if the
        platform does not count unread bytes. Then all lines count as read.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._all_read_at = float("-inf")

    @property
    def full(self) -> bool:
        """Whether so many lines are unread that logging further ones could block."""
        return self._descriptor is not None and not self._events(select.POLLOUT)

    def check(self) -> None:
        """Record if all lines have been read by now. Call this before logging, because new lines are not read yet."""
        now = time.monotonic()
        with contextlib.suppress(OSError):  # this process has closed the socket
            # In this order: when the other process ends, bytes that it has not read do not count any more.
            if self._descriptor is not None and _unread_bytes(self._descriptor) == 0 and not self.closed:
                self._all_read_at = now

    def read_since(self, logged_at: float) -> bool:
        """Whether all lines that were logged until ``logged_at`` (of ``time.monotonic()``) have been read."""
        self.check()
        return self._descriptor is None or self._all_read_at > logged_at

    @property
    def closed(self) -> bool:
        """Whether the other process has ended, or one of the two has closed the socket."""
        return self._descriptor is not None and bool(self._events(0))

    def _events(self, events: int) -> int:
        """Which of ``events`` have happened, or POLLHUP or POLLERR, which need not be asked for."""
        poll = select.poll()
        poll.register(self._descriptor or 0, events)
        return sum(found for _, found in poll.poll(0))


class PacedLog:
    """Logs lines as fast as they are read, and keeps the others. So logging never blocks.

    :param log: the logger that sends its lines over ``channel``.
    """

    def __init__(self, log: Any, channel: LogChannel) -> None:
        self._log, self._channel = log, channel
        self._kept: deque[tuple[int, str]] = deque()
        self._pause = _SHORTEST_PAUSE

    def log(self, level: int, line: str) -> None:
        """Log a line, or keep it until there is room."""
        self._kept.append((level, line))
        self._send()

    def send(self) -> None:
        """Log the kept lines for which there is room."""
        sent = self._send()
        self._pause = _SHORTEST_PAUSE if sent or not self._kept else min(2 * self._pause, _LONGEST_PAUSE)

    def _send(self) -> int:
        sent = 0
        while self._kept and not self._channel.full:
            level, line = self._kept.popleft()
            self._log.log(level, "%s", line)
            sent += 1
        return sent

    @property
    def seconds_to_next(self) -> float | None:
        """The pause before the next call of :meth:`send`; ``None`` if no line is kept."""
        return self._pause if self._kept else None

    async def drained(self, seconds: float) -> bool:
        """Log all kept lines, and wait until all lines have been read. Returns whether they were in time."""
        until, sent_at = time.monotonic() + seconds, time.monotonic()
        while self._kept or not self._channel.read_since(sent_at):
            if self._channel.closed or time.monotonic() >= until:
                return False
            await asyncio.sleep(_SHORTEST_PAUSE)
            if self._kept:
                self.send()
                sent_at = time.monotonic()
        return True


def log_channel() -> LogChannel:
    """The channel of this process. In a triggerer, structlog is configured to write to Airflow's socket."""
    import structlog

    file: Any = getattr(structlog.get_config().get("logger_factory"), "io", None)
    try:
        descriptor: int = file.fileno()
        counts = stat.S_ISSOCK(os.fstat(descriptor).st_mode) and sys.platform == "linux"
        if counts:
            _unread_bytes(descriptor)  # some sandboxes do not count them
    except (AttributeError, OSError, ValueError):
        counts = False
    return _channel(descriptor if counts else None)


def _unread_bytes(descriptor: int) -> int:
    """The bytes that were sent but not read, with the kernel's overhead.

    :raises OSError: they are not counted, or the socket is closed.
    """
    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0])


@functools.cache
def _channel(descriptor: int | None) -> LogChannel:
    return LogChannel(descriptor)
