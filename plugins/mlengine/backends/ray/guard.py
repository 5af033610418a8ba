"""Runs one command on a node, and ends it with everything that it has started, no matter how its owner ends.

``python guard.py LOG GRACE COMMAND…``. The owner, a Ray actor, holds the other ends of two pipes:

* A line on standard input ends the command: SIGTERM, and SIGKILL after GRACE seconds. End of file does the same: the
  owner was killed, or Ray was stopped on its node.
* When the command and all its descendants have ended, the command's exit code is written to standard output (negative:
  the signal). End of file without it means that the guard was killed; then the kernel has killed the command.

The command's output goes to LOG. The guard is not a child of the actor, because Ray kills an actor's children with
SIGKILL, and their children would survive.

The guard uses the standard library only: it is started by its path, and needs no package of this project.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_PDEATHSIG, _SUBREAPER = 1, 36
_KILL_SECONDS = 10.0


def main(argv: list[str]) -> int:
    """Run the command, and return when it and all its descendants have ended."""
    log, grace, command = Path(argv[0]), float(argv[1]), argv[2:]
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _prctl(_SUBREAPER, 1)
    try:
        process = _start(command, log)
    except OSError as error:
        with log.open("a") as sink:
            sink.write(f"cannot run {command[0]}: {error}\n")
        _report(127)
        return 0
    code = _wait(process, grace)
    _kill_descendants()
    _report(code)
    return 0


def _start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    guard = os.getpid()
    with log.open("ab") as sink:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: _child(guard),  # noqa: PLW1509 - this process has one thread
        )


def _child(guard: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    # Ray blocks signals in its own processes, and child processes inherit the signal mask.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _prctl(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(1)


def _wait(process: subprocess.Popen[bytes], grace: float) -> int:
    """Wait until the command has ended by itself or on request, and return its exit code."""
    kill_at: float | None = None
    stdin: list[int] = [0]
    while True:
        code = process.poll()
        if code is not None:
            return code
        _reap(process.pid)
        ready, _, _ = select.select(stdin, [], [], 0.1)
        if ready:
            order = os.read(0, 4096)
            if not order:
                stdin = []
            if kill_at is None:
                kill_at = time.monotonic() + grace
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGCONT)
        if kill_at is not None and time.monotonic() >= kill_at:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if not stdin:
            time.sleep(0.05)


def _kill_descendants() -> None:
    """Kill the children of this process until there are none.

    This process becomes the parent of every descendant whose own parent has ended, so new children can appear.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    while (pids := _children()) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        _reap(0)
        time.sleep(0.01)


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _reap(own: int) -> None:
    """Reap adopted processes that have ended, except the command, whose exit code is needed."""
    for pid in _children():
        if pid != own:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _report(code: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{code}\n".encode())


def _prctl(option: int, argument: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
