"""A lock on a file that ends with its holder, however the holder ends.

The kernel drops the lock when the last descriptor is closed: on a clean end, on ``kill -9``, on a power cut. It works
between containers that share the folder, where process ids mean nothing. It does not work on network file systems
that do not pass ``flock`` on: the state dir must be on a disk of this machine.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path


class FileLock:
    """A held lock. Closing it, or dying, gives it back."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path, *, wait: float = 0.0, shared: bool = False) -> FileLock | None:
        """``None`` if another process holds it, and still does after ``wait`` seconds.

        A check (:func:`held`) locks the file for an instant, so a caller that wants the lock should wait a little.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        deadline = time.monotonic() + wait
        pause = 0.01
        while True:
            try:
                fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    return None
                time.sleep(pause)
                pause = min(2 * pause, 0.25)
            else:
                return cls(descriptor)

    @classmethod
    def inherited(cls, descriptor: int) -> FileLock:
        """The lock that this process inherited from its parent. Its own children do not get it."""
        os.set_inheritable(descriptor, False)
        return cls(descriptor)

    def fileno(self) -> int:
        """Inherited by a child, it keeps the lock held as long as the child runs."""
        return self._descriptor

    def give_back(self) -> None:
        """Safe to repeat."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()


def held(path: Path) -> bool:
    """Whether a process holds the lock now. A missing file is not locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look at once do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
