"""The emulator as a container's first process: keeps it up, and lets jobs save when the container is stopped.

A launcher that is told to end tells its replicas, which save, and the job goes on from there as its next attempt.
Stopping a container tells one process alone and kills the others a moment later; so that one passes the word on.
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
            # Jobs do not need the emulator to go on; a container that ended here would end them.
            sys.stderr.write(f"trainer: the emulator ended with code {emulator.returncode}; it is started again\n")
            emulator = subprocess.Popen(EMULATOR)
    launchers = list(orphans(emulator.pid))
    sys.stderr.write(f"trainer: told to stop; {len(launchers)} jobs are told to save\n")
    for pid in launchers:
        _tell(pid)
    until = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < until and set(launchers) & set(orphans(emulator.pid)):
        time.sleep(0.2)
    _tell(emulator.pid)
    emulator.wait(GRACE_SECONDS)
    return 0


def orphans(*others: int) -> Iterator[int]:
    """The processes that belong to nobody but the container's init: the launchers, one a job."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue  # it has just ended
        pid = int(stat.parent.name)
        if parent == "1" and state != "Z" and pid not in {1, os.getpid(), *others}:
            yield pid


def _tell(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main())
