"""Formats a job's progress as log lines, and keeps the cursor that records which lines were logged.

One :class:`LogFormatter` per job converts polls (status, new log lines, progress) to lines for the task's log. Its
:class:`LogCursor` is saved in the bucket, so that a wait that continues in another process, after a restart or a
reschedule, neither repeats nor omits lines.

This module does not import Airflow, because the trigger, the sensor and the command line share it. It makes no
decisions about the job.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mlengine.backends import LogPage
from mlengine.core import plaintext
from mlengine.core.errors import ObjectMissingError, StorageError
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.metrics import format_value
from mlengine.storage.client import Storage

# The interval between two progress lines, for callers of LogFormatter.progress_due.
PROGRESS_SECONDS = 15.0


@dataclass(frozen=True)
class LogCursor:
    """The part of an attempt's log that was already logged, so that a restarted wait continues after it.

    :param logs: the backend's own cursor.
    :param links: the replicas whose web pages were logged.
    :param open: whether a wait was still logging when this was saved. If that wait has ended, it may have logged
        further lines.
    """

    attempt: int
    logs: Mapping[str, Any] = field(default_factory=dict)
    state: str = ""
    detail: str = ""
    step: int = -1
    open: bool = False
    links: list[str] = field(default_factory=list)


_CURSOR_TYPES = {"attempt": int, "logs": dict, "state": str, "detail": str, "step": int, "open": bool, "links": list}


@dataclass(frozen=True)
class Progress:
    """The progress that a trainer wrote to ``train/progress.json``. Times are in seconds."""

    step: int
    of: int
    examples_per_second: float | None = None
    loss: float | None = None
    eta_seconds: float | None = None

    def __str__(self) -> str:
        # Workers that end at the same time overshoot by a step or two.
        step = min(self.step, self.of) if self.of else self.step
        share = f" ({100 * step / self.of:.0f} %)" if self.of else ""
        parts = [f"step {step:,} of {self.of:,}{share}"]
        if self.eta_seconds is not None:
            parts.append(f"{duration(self.eta_seconds)} to go")
        if self.loss is not None:
            parts.append(f"loss {format_value(self.loss)}")
        if self.examples_per_second is not None:
            rate = self.examples_per_second
            parts.append(f"{rate:,.0f} examples/s" if rate >= 10 else f"{rate:.2g} examples/s")
        return ", ".join(parts)


def read_progress(storage: Storage, job_dir: JobDir) -> Progress | None:
    """Read the last reported progress; ``None`` if there is none or it is invalid."""
    try:
        raw = json.loads(storage.read_small(job_dir.progress))
        return Progress(
            step=_step(raw["step"]),
            of=_step(raw["of"]),
            examples_per_second=_finite(raw.get("examples_per_second")),
            loss=_finite(raw.get("loss")),
            eta_seconds=_finite(raw.get("eta_seconds")),
        )
    except (StorageError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def read_cursor(storage: Storage, handle: JobHandle) -> LogCursor:
    """Read the saved cursor of this attempt; returns a new one if there is none."""
    try:
        cursor = _cursor(json.loads(storage.read_small(JobDir(handle.job_dir).cursor)))
    except (ObjectMissingError, ValueError, TypeError, RecursionError):
        return LogCursor(handle.attempt)
    return cursor if cursor.attempt == handle.attempt else LogCursor(handle.attempt)


def _cursor(raw: Mapping[str, Any]) -> LogCursor:
    """Read a cursor, and check it, because the job's own code can write to the job dir.

    :raises TypeError: the value is not a cursor.
    """
    cursor = LogCursor(**raw)
    for name, kind in _CURSOR_TYPES.items():
        if type(getattr(cursor, name)) is not kind:
            raise TypeError(f"{name} is not a {kind.__name__}")
    if not all(isinstance(link, str) for link in cursor.links):
        raise TypeError("a link is not a string")
    return cursor


def write_cursor(storage: Storage, handle: JobHandle, cursor: LogCursor) -> None:
    """Save the cursor of this attempt."""
    storage.write_small(JobDir(handle.job_dir).cursor, json.dumps(asdict(cursor)).encode())


class LogFormatter:
    """Turns the polls of one job into log lines.

    :param cursor: the position at which to continue.
    """

    def __init__(self, cursor: LogCursor) -> None:
        self.cursor = cursor
        self._progress_at = -math.inf

    @property
    def progress_due(self) -> bool:
        """Whether it is time for a progress line. Check this before reading the progress from the bucket."""
        return time.monotonic() - self._progress_at >= PROGRESS_SECONDS

    def new_lines(self, status: JobStatus, page: LogPage | None = None, progress: Progress | None = None) -> list[str]:
        """The new lines, oldest first: lines of replicas, then progress, then a change of state."""
        lines: list[str] = []
        if page is not None:
            # Backends pass on a trainer's output unchanged. It is sanitised here, before it enters the task's log.
            lines += [log_line(line.replica, text) for line in page.lines for text in plaintext.lines(line.text)]
            self.cursor = replace(self.cursor, logs=page.cursor)
        lines += self.progress_lines(progress)
        state = status.state.value
        known = status.state is not JobState.UNKNOWN or status.detail or self.cursor.state
        if known and (state, status.detail) != (self.cursor.state, self.cursor.detail):
            lines += [log_line("job", line) for line in _state_lines(status, self.cursor.state)]
            self.cursor = replace(self.cursor, state=state, detail=status.detail)
        new = [replica for replica in status.links if replica not in self.cursor.links]
        lines += [log_line("job", f"web access to {replica}: {status.links[replica]}") for replica in new]
        if new:
            self.cursor = replace(self.cursor, links=[*self.cursor.links, *new])
        return lines

    def progress_lines(self, progress: Progress | None) -> list[str]:
        """A progress line if there was progress since the last one; otherwise, an empty list."""
        if progress is None or progress.step == self.cursor.step:
            return []
        self._progress_at = time.monotonic()
        self.cursor = replace(self.cursor, step=progress.step)
        return [log_line("progress", str(progress))]


def log_line(source: str, text: str) -> str:
    """A line of the task's log.

    :param source: a replica, or ``job``, ``progress``, or ``wait`` for what the wait says about itself.
    """
    return f"{source:>11} | {text}"


def _state_lines(status: JobStatus, before: str) -> list[str]:
    """The lines for a state and its message.

    Further lines of the message are indented, so that none looks like a state.
    """
    arrow = f"{before} → {status.state.value}" if before and before != status.state.value else status.state.value
    if not status.detail:
        return [arrow]
    first, *rest = plaintext.lines(status.detail)
    return [f"{arrow}: {first}", *(f"    {line}" for line in rest)]


def duration(seconds: float) -> str:
    """A duration formatted for people, such as ``2 h 05 min``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _step(value: Any) -> int:
    """Parse a number of steps.

    :raises ValueError: the value is not a number of steps.
    """
    number = int(value)
    if not 0 <= number < 2**63:
        raise ValueError(f"{value} is not a number of steps")
    return number


def _finite(value: Any) -> float | None:
    """A number as a float; ``None`` if it is not finite, like a rate before the first step or a loss that diverged."""
    number = None if value is None else float(value)
    return number if number is None or math.isfinite(number) else None
