"""The emulator's state directory, which only one emulator at a time can use.

::

    DIR/lock           held by the emulator; contains its process id
    DIR/jobs/*.json    one record for each job
    DIR/pipelines/*.json  one record for each training pipeline
    DIR/models/*.json  one record for each model, with its versions
    DIR/logs/          the log entries of all jobs: an SQLite database
    DIR/objects/       copies of Cloud Storage objects that a running job's command names
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlengine.core.errors import EmulatorError
from mlengine.runtime.file_lock import FileLock


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Create the directory and hold its lock during the ``with`` block.

    :raises EmulatorError: another emulator uses the directory, or the directory cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock.take(folder / "lock")
    except OSError as error:
        raise EmulatorError(
            f"cannot use the state directory {folder}: {error.strerror}",
            hint="choose another --state-dir, or change its permissions",
        ) from error
    if lock is None:
        raise EmulatorError(
            f"another emulator uses the state directory {folder}{_owner(folder)}",
            hint="stop that emulator, or choose another --state-dir",
        )
    with lock:
        os.ftruncate(lock.fileno(), 0)
        os.pwrite(lock.fileno(), f"{os.getpid()}\n".encode(), 0)
        yield folder


def _owner(folder: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f" (process {int((folder / 'lock').read_text('ascii'))})"
    return ""
