"""Runs the emulator in a container: restarts it, and lets jobs save a checkpoint when the container stops.

A launcher that gets SIGTERM forwards it to its replicas. They save a checkpoint, and the job's next attempt resumes
from it. A container's stop signals only its first process, and kills the others later. So this process forwards the
signal to all launchers.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

EMULATOR = ("mlengine", "emulator", "--host", "0.0.0.0", "--port", "9000")  # noqa: S104 - on a network of the stack's own
GRACE_SECONDS = 45.0  # within the stop_grace_period of docker-compose.yaml
PAUSE_SECONDS = 1.0


def main() -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    emulator = subprocess.Popen(EMULATOR)
    while not stop.wait(PAUSE_SECONDS):
        if emulator.poll() is not None:
            # Jobs continue without the emulator, but not without the container.
            sys.stderr.write(f"trainer: the emulator ended with exit code {emulator.returncode}; restarting it\n")
            emulator = subprocess.Popen(EMULATOR)
    launchers = list(orphans(emulator.pid))
    sys.stderr.write(f"trainer: stopping; sending SIGTERM to the launchers of {len(launchers)} jobs\n")
    for pid in launchers:
        _terminate(pid)
    until = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < until and set(launchers) & set(orphans(emulator.pid)):
        time.sleep(0.2)
    _terminate(emulator.pid)
    emulator.wait(GRACE_SECONDS)
    return 0


def orphans(*others: int) -> Iterator[int]:
    """The children of the container's init process: the launchers, one for each job."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue  # the process has ended
        pid = int(stat.parent.name)
        if parent == "1" and state != "Z" and pid not in {1, os.getpid(), *others}:
            yield pid


def _terminate(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main())
