"""Starts and stops the processes of Airflow's components, and reads the end of a log."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

STOP_SECONDS = 10.0
_TAIL_BYTES = 1 << 16  # logs of components are only appended, so they may be long
_PATIENCE_SECONDS = 4.0  # the time that tasks have to end by themselves


def spawn(arguments: list[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start this Python interpreter with ``arguments``; its output is appended to ``log``.

    The process gets its own session: Ctrl-C in the terminal reaches only the process that started it, which then stops
    it in an orderly way.
    """
    with log.open("ab") as sink:
        return subprocess.Popen(
            [sys.executable, *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=log.parent,
        )


def stop_all(processes: list[subprocess.Popen[bytes]]) -> None:
    """Send SIGTERM to each process, give it time to clean up, then send SIGKILL to all that is left of the sessions."""
    sessions = {process.pid for process in processes}
    for process in processes:
        for pid in _signal_targets(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    children = [child for process in processes for child in _children(process)]
    began = time.monotonic()
    while any(process.poll() is None for process in processes) and time.monotonic() - began < STOP_SECONDS:
        time.sleep(0.05)
        if children and time.monotonic() - began > _PATIENCE_SECONDS:
            _kill(children)
            children = []
    for process in processes:
        if process.poll() is None:
            signal_group(process, signal.SIGKILL)
            process.wait()
    for pid in _members(sessions):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _signal_targets(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that must get SIGTERM to stop a component.

    A triggerer that gets SIGTERM may wait 10 s for its child although that has ended. If its child gets it instead, the
    triggerer stops at once and in an orderly way, and releases its triggers for the next one.
    """
    if process.poll() is not None:
        return []
    with contextlib.suppress(psutil.Error):
        if "triggerer" in psutil.Process(process.pid).cmdline():
            return [child.pid for child in _children(process)] or [process.pid]
    return [process.pid]


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return list(psutil.Process(process.pid).children(recursive=True))
    return []


def _kill(children: list[psutil.Process]) -> None:
    """Kill workers: a scheduler waits for them without a time limit, and ends in an orderly way when they are gone."""
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.kill()


def _members(sessions: set[int]) -> list[int]:
    """The processes of these sessions. Tasks have separate process groups, but belong to their component's session."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) in sessions:
                found.append(pid)
    return found


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a component and to the processes of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log; empty if there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
