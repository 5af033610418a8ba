"""Which processes are a job's, and how they are ended. Nothing else is ever signalled.

A process is the job's own if it carries the job's folder in its environment (:data:`environ.MARK`), or if it is a
recorded one: same pid *and* same start, counted from the same boot, so that a pid that the system has given to another
else is left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mlengine.runtime.env_allowlist import MARK

_LINUX = sys.platform == "linux"


@dataclass(frozen=True)
class Process:
    """A process for all time: ``start`` distinguishes it from a later one with the same pid."""

    pid: int
    start: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """``None`` if there is no such process, or it has ended and only waits to be reaped."""
        start = _start(pid)
        return None if start is None else cls(pid, start)

    def alive(self) -> bool:
        return _start(self.pid) == self.start

    def signal(self, number: int) -> None:
        """Only if it still is this process."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def to_json(self) -> dict[str, Any]:
        return {"pid": self.pid, "start": self.start}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Process:
        return cls(int(data["pid"]), str(data["start"]))


def of_job(folder: Path, recorded: Iterable[Process] = ()) -> list[Process]:
    """Every live process of the job, except this one and those that carry it on (its launcher)."""
    found = {process for process in recorded if process.alive()}
    for pid in _pids():
        if pid != os.getpid() and _mark(pid) == str(folder):
            process = Process.of(pid)
            if process is not None:
                found.add(process)
    return sorted(found, key=lambda process: process.pid)


def end_all(find: Callable[[], list[Process]], grace: float) -> int:
    """SIGTERM, then SIGKILL after ``grace`` seconds, until ``find`` finds none. Returns how many there were.

    Searches again after each signal: a process that starts another while it is ended does not get away.
    """
    left = find()
    count = len(left)
    for process in left:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + grace
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [process for process in left if process.alive()]
    last = time.monotonic() + 10.0
    while (left := find()) and time.monotonic() < last:
        for process in left:
            process.signal(signal.SIGKILL)
        time.sleep(0.02)
    return count


def die_with_parent(parent: int) -> None:
    """To be called in a child between fork and exec: SIGTERM when the launcher dies, however it dies.

    And should memory run out, the system is to end the trainer rather than its launcher, or Airflow. Linux only;
    elsewhere the next poll of the job ends the replicas of a launcher that has died.
    """
    if _LINUX:
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500")
        _prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)


def adopt_grandchildren() -> None:
    """Become the parent of every descendant whose own parent dies, so that none is lost from sight (Linux only)."""
    if _LINUX:
        _prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


def children() -> list[Process]:
    """The children of this process (Linux only; elsewhere none are known)."""
    return [process for pid in _child_pids() if (process := Process.of(pid)) is not None]


def reap_strangers(own: set[int]) -> None:
    """Reap adopted children that have ended.

    :param own: children that were started here: their exit codes are read elsewhere.
    """
    for pid in set(_child_pids()) - own:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _child_pids() -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


@cache
def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int) -> None:
    _libc().prctl(option, argument, 0, 0, 0)


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start(pid: int) -> str | None:
    if not _LINUX:
        return _start_elsewhere(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The name in parentheses may hold spaces and parentheses itself: fields are counted from behind it.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{_boot()}:{fields[19]}"


def _pids() -> list[int]:
    if _LINUX:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    import psutil  # type: ignore[import-untyped,unused-ignore]

    return list(psutil.pids())


def _mark(pid: int) -> str | None:
    if not _LINUX:
        return _mark_elsewhere(pid)
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    prefix = f"{MARK}=".encode()
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return os.fsdecode(entry[len(prefix) :])
    return None


def _start_elsewhere(pid: int) -> str | None:
    import psutil  # type: ignore[import-untyped,unused-ignore]

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def _mark_elsewhere(pid: int) -> str | None:
    import psutil  # type: ignore[import-untyped,unused-ignore]

    try:
        mark = psutil.Process(pid).environ().get(MARK)
    except (psutil.Error, OSError):
        return None
    return None if mark is None else str(mark)
