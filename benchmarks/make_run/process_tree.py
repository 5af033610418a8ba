"""CPU time and memory of a command with all processes that it starts, detached ones included."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

_SET_CHILD_SUBREAPER = 36
_SAMPLE_SECONDS = 2.0
_STOP_SECONDS = 90.0
_TICKS = os.sysconf("SC_CLK_TCK")


class ProcessTree:
    """A running command. Use it as a context manager, which ends all its processes on exit.

    :ivar peak_mib: the largest sum of proportional memory (PSS) of all processes so far, in MiB.
    """

    def __init__(self, command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        # Detached processes become children of this one when their parents exit, so that their CPU time is counted.
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._reaped = _reaped_cpu()
        self.peak_mib = 0.0
        self._over = threading.Event()
        self.process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._sampler.join()
        if self.process.poll() is None:
            self.interrupt()
        for child in psutil.Process().children(recursive=True):
            child.kill()
        _reap()

    def lines(self) -> Iterator[str]:
        """The output, line by line, until the command ends."""
        for line in self.process.stdout or ():
            yield line.rstrip("\n")

    def cpu(self) -> float:
        """CPU seconds of all processes so far, including exited ones."""
        _reap(self.process.pid)
        ticks = 0
        for child in psutil.Process().children(recursive=True):
            try:
                fields = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            ticks += sum(int(field) for field in fields[11:15])
        return ticks / _TICKS + _reaped_cpu() - self._reaped

    def interrupt(self) -> None:
        """Send Ctrl-C to the command, and wait until it has exited."""
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            found = (_pss_mib(child.pid) for child in psutil.Process().children(recursive=True))
            self.peak_mib = max(self.peak_mib, sum(found))


def _pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def _reaped_cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _reap(but: int = 0) -> None:
    """Reap the exited children, except one that ``subprocess`` waits for."""
    deadline = time.monotonic() + 10.0
    for child in psutil.Process().children():
        if child.pid == but:
            continue
        try:
            while os.waitpid(child.pid, os.WNOHANG) == (0, 0) and not but and time.monotonic() < deadline:
                time.sleep(0.05)
        except ChildProcessError:
            continue
