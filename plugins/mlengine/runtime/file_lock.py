"""A file lock that is released when its holder ends, for any reason.

The kernel releases the lock when the last descriptor is closed, also after ``kill -9``. It works between containers
that share the directory, where process ids differ. It does not work on network file systems without ``flock``: the
state dir must be on a local disk.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path


class FileLock:
    """A held lock. It is released by :meth:`close`, or when the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path, *, wait: float = 0.0, shared: bool = False) -> FileLock | None:
        """Take the lock; ``None`` if another process still holds it after ``wait`` seconds.

        :func:`held` locks the file for an instant, so a caller that wants the lock should wait a little.
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
        """Adopt the lock that this process inherited from its parent. Its own children do not inherit it."""
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
        # A shared lock, so that two concurrent checks do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
