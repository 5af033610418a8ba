"""A file lock that is released when its holder ends, for any reason.

The kernel releases the lock when the last descriptor is closed, even after ``kill -9``. The lock works between
containers that share the directory, where process ids differ. It does not work on network file systems without
``flock``: the state dir must be on a local disk.

A process that holds the exclusive lock may delete the file. Another process may have opened it just before: once it has
the lock, it checks that the path still leads to the same file, and otherwise opens the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path


class FileLock:
    """A held lock. It is released by :meth:`give_back`, or when the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path, *, wait: float = 0.0, shared: bool = False) -> FileLock | None:
        """Take the lock; ``None`` if another process still holds it after ``wait`` seconds.

        :func:`held` locks the file for an instant, so a caller that wants the lock should wait a little.
        """
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        deadline = time.monotonic() + wait
        pause = 0.01
        descriptor = _open(path)
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
                if _leads_to(path, descriptor):
                    return cls(descriptor)
                os.close(descriptor)
                descriptor = _open(path)

    @classmethod
    def inherited(cls, descriptor: int) -> FileLock:
        """Adopt the lock that this process inherited from its parent. Its own children do not inherit it."""
        os.set_inheritable(descriptor, False)
        return cls(descriptor)

    def fileno(self) -> int:
        """The lock's descriptor. A child process that inherits it keeps the lock held as long as it runs."""
        return self._descriptor

    def give_back(self) -> None:
        """Release the lock. The call can be repeated safely."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _leads_to(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one at the path: not deleted, and not replaced by another one."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False


def held(path: Path) -> bool:
    """Whether a process holds the lock now. A missing file is not locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # The check takes a shared lock, so that two concurrent checks do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
