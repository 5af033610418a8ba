"""What a wait tells of a job, line by line, and how far it has told it.

One :class:`Narrator` a job turns looks at the job (status, new log lines, progress) into lines for the task's log. How
far it got is kept in the bucket, so that a wait that goes on in another process, after a restart or a reschedule, says
nothing twice and leaves nothing out.

Knows no Airflow: the trigger, the sensor and the command line use it alike. Decides nothing about the job.
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
from mlengine.storage.client import Storage


@dataclass(frozen=True)
class Told:
    """How far a job was told: what a restarted wait needs.

    :param logs: the backend's own cursor.
    :param open: somebody was still telling when this was kept; if nobody is any more, more may have been told.
    """

    attempt: int
    logs: Mapping[str, Any] = field(default_factory=dict)
    state: str = ""
    detail: str = ""
    step: int = -1
    open: bool = False


@dataclass(frozen=True)
class Progress:
    """What a trainer wrote to ``train/progress.json``. Times in seconds."""

    step: int
    of: int
    examples_per_second: float | None = None
    loss: float | None = None
    eta_seconds: float | None = None

    def __str__(self) -> str:
        # Workers that end together overshoot by a step or two.
        step = min(self.step, self.of) if self.of else self.step
        share = f" ({100 * step / self.of:.0f} %)" if self.of else ""
        parts = [f"step {step:,} of {self.of:,}{share}"]
        if self.examples_per_second is not None:
            parts.append(f"{self.examples_per_second:,.0f} examples/s")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.eta_seconds is not None:
            parts.append(f"{duration(self.eta_seconds)} to go")
        return ", ".join(parts)


def read_progress(storage: Storage, job_dir: JobDir) -> Progress | None:
    """The trainer's own word on how far it is; ``None`` if it has not written any, or none that can be read."""
    try:
        raw = json.loads(storage.read(job_dir.progress))
        return Progress(
            step=int(raw["step"]),
            of=int(raw["of"]),
            examples_per_second=_number(raw.get("examples_per_second")),
            loss=_number(raw.get("loss")),
            eta_seconds=_number(raw.get("eta_seconds")),
        )
    except (StorageError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def read_told(storage: Storage, handle: JobHandle) -> Told:
    """How far this attempt was told; the beginning, if it never was."""
    try:
        raw = json.loads(storage.read(JobDir(handle.job_dir).cursor))
        told = Told(**raw)
    except (ObjectMissingError, ValueError, TypeError):
        return Told(handle.attempt)
    return told if told.attempt == handle.attempt else Told(handle.attempt)


def write_told(storage: Storage, handle: JobHandle, told: Told) -> None:
    """Keep how far this attempt was told."""
    storage.write(JobDir(handle.job_dir).cursor, json.dumps(asdict(told)).encode())


class Narrator:
    """Turns looks at one job into lines.

    :param progress_interval: seconds between two progress lines.
    """

    def __init__(self, told: Told, *, progress_interval: float = 15.0) -> None:
        self.told = told
        self._progress_interval = progress_interval
        self._progress_at = float("-inf")

    @property
    def wants_progress(self) -> bool:
        """Whether it is time for a progress line; ask before reading it from the bucket."""
        return time.monotonic() - self._progress_at >= self._progress_interval

    def tell(self, status: JobStatus, page: LogPage | None = None, progress: Progress | None = None) -> list[str]:
        """The lines that are new, oldest first: replicas' lines, then progress, then a change of state."""
        lines: list[str] = []
        if page is not None:
            # A backend may hand on what a trainer wrote as it came: here is where it enters the task's log.
            lines += [f"{line.replica:>11} | {text}" for line in page.lines for text in plaintext.lines(line.text)]
            self.told = replace(self.told, logs=page.cursor)
        lines += self.tell_progress(progress)
        state = status.state.value
        if (state, status.detail) != (self.told.state, self.told.detail):
            lines.append(f"{'job':>11} | {_state_line(status, self.told.state)}")
            self.told = replace(self.told, state=state, detail=status.detail)
        return lines

    def tell_progress(self, progress: Progress | None) -> list[str]:
        """A line, if there was some since the last."""
        if progress is None or progress.step == self.told.step:
            return []
        self._progress_at = time.monotonic()
        self.told = replace(self.told, step=progress.step)
        return [f"{'progress':>11} | {progress}"]


@dataclass(frozen=True)
class Deadlines:
    """Our own limits, in seconds since the epoch: kept with the wait, for Airflow enforces none while deferred."""

    queued_until: float
    running_until: float

    @classmethod
    def starting(cls, since: float, queued_seconds: float, running_seconds: float) -> Deadlines:
        """Counted from ``since``, in seconds since the epoch: when the attempt was submitted."""
        return cls(since + queued_seconds, since + queued_seconds + running_seconds)

    def seconds_left(self, state: JobState = JobState.UNKNOWN) -> float | None:
        """How long the whole wait, or the wait in ``state``, may still take; ``None`` for ever."""
        until = min(self.queued_until, self.running_until) if state is JobState.QUEUED else self.running_until
        left = until - time.time()
        return None if left == float("inf") else max(left, 0.0)

    def passed(self, state: JobState) -> str | None:
        """A sentence if ``state`` lasts longer than it may."""
        now = time.time()
        if state is JobState.QUEUED and now >= self.queued_until:
            return "it was QUEUED for longer than queued_timeout_seconds allows"
        if now >= self.running_until:
            return "it took longer than running_timeout_seconds allows"
        return None


def backoff(attempt: int, first: float) -> float:
    """Seconds between the end of ``attempt`` and the next: twice as long each time, an hour at most."""
    return min(first * 2.0 ** (attempt - 1), 3600.0)


def _state_line(status: JobStatus, before: str) -> str:
    arrow = f"{before} → {status.state.value}" if before and before != status.state.value else status.state.value
    return f"{arrow}: {plaintext.line(status.detail)}" if status.detail else arrow


def duration(seconds: float) -> str:
    """For a person: ``2 h 05 min``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _number(value: Any) -> float | None:
    """``None`` for what is no finite number: a rate before the first step, a loss that has burst."""
    number = None if value is None else float(value)
    return number if number is None or math.isfinite(number) else None
