"""Finds and ends the processes of a job. No other process is ever signalled.

A process belongs to a job if its environment has the job's folder (:data:`~mlengine.runtime.env_allowlist.MARK`), or if
it is recorded: same pid *and* same start time since the same boot, because the system reuses pids. This is read from
``/proc``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mlengine.runtime.env_allowlist import MARK


@dataclass(frozen=True)
class Process:
    """One process. ``start`` distinguishes it from a later process with the same pid."""

    pid: int
    start: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process with a pid; ``None`` if there is no such process, or it is a zombie."""
        start = _start(pid)
        return None if start is None else cls(pid, start)

    def alive(self) -> bool:
        return _start(self.pid) == self.start

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def to_json(self) -> dict[str, Any]:
        return {"pid": self.pid, "start": self.start}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Process:
        return cls(int(data["pid"]), str(data["start"]))


def of_job(folder: Path, recorded: Iterable[Process] = ()) -> list[Process]:
    """Every live process of the job, except the calling process.

    :param folder: the job's folder. Processes that were started with another path to it, through a link, are found too.
    """
    real = os.path.realpath(folder)
    found = {process for process in recorded if process.alive()}
    for pid in _pids():
        if pid != os.getpid() and (mark := _mark(pid)) and os.path.realpath(mark) == real:
            process = Process.of(pid)
            if process is not None:
                found.add(process)
    return sorted(found, key=lambda process: process.pid)


def end_all(find: Callable[[], list[Process]], grace: float) -> int:
    """Send SIGTERM, and SIGKILL after ``grace`` seconds, until ``find`` finds no process. Return their initial number.

    ``find`` is called again after each round of signals, because a process may start another one while it ends.
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
    """Make the kernel send SIGTERM when the launcher dies. Call it in a child between fork and exec.

    The function also raises the child's OOM score: if memory runs out, the kernel kills the trainer before its launcher
    or Airflow.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    _prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def adopt_grandchildren() -> None:
    """Become the parent of every descendant whose own parent dies, so that all of them can be found."""
    _prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


def children() -> list[Process]:
    """The children of this process."""
    return [process for pid in _child_pids() if (process := Process.of(pid)) is not None]


def reap_strangers(own: set[int]) -> None:
    """Reap adopted children that have ended.

    :param own: pids of children whose exit codes the caller reads itself.
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
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The process name, in parentheses, may contain spaces and parentheses: split after it.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{_boot()}:{fields[19]}"


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _mark(pid: int) -> str | None:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    prefix = f"{MARK}=".encode()
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return os.fsdecode(entry[len(prefix) :])
    return None
