"""The directory in which trainers keep data between jobs (``MLENGINE_DATA_CACHE``), and the removal of unused data.

``data-cache/`` belongs to the trainers: only they know what is in it. An *entry* is a file or a directory directly in
it. An entry is removed if no file in it was read or written for a number of days, and only as a whole: a trainer that
finds a directory may rely on its content. A trainer that does not find its data fetches it again.

Jobs hold a shared lock while they train. Nothing is removed meanwhile: on a file system that does not record when a
file was read (``noatime``), data that is in use may look unused.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from mlengine.core.plural import number_of
from mlengine.runtime.file_lock import FileLock

_DAY_SECONDS = 86400.0
_REMOVED = ".removed-"  # the prefix of entries that are being removed
_LOCK_SECONDS = 20.0  # entries are renamed under the lock, and deleted after it is released


def data_cache(state_dir: Path) -> Path:
    """The directory of the trainers' data."""
    return state_dir / "data-cache"


def use(state_dir: Path) -> FileLock | None:
    """A lock that keeps all data from being removed. ``None`` if another process holds it for unusually long."""
    return FileLock.take(_lock_path(state_dir), wait=_LOCK_SECONDS, shared=True)


def remove_unused(state_dir: Path, days: int, say: Callable[[str], None] = lambda _: None) -> list[str]:
    """Remove the entries that were not used for ``days``, and return their names. Errors are ignored.

    Nothing is removed while a job trains. Links are neither followed nor removed. The directory is searched once a day
    at most, because it may have many files.

    :param days: 0 keeps all data.
    :param say: called with a message if anything was removed.
    """
    folder = data_cache(state_dir)
    if not days or not folder.is_dir():
        return []
    removed: list[str] = []
    with contextlib.suppress(OSError):
        if _is_due(_lock_path(state_dir)):
            removed = _set_aside(state_dir, time.time() - days * _DAY_SECONDS)
        freed = sum(_delete(entry) for entry in folder.glob(f"{_REMOVED}*"))  # also those of a process that was killed
        if removed:
            count = number_of(len(removed), "item")
            say(f"removed {count} from {folder}, {freed >> 20:,} MiB: not used for {days} days")
    return removed


def _set_aside(state_dir: Path, limit: float) -> list[str]:
    """Rename the entries that were last used before ``limit``, unless a job trains. Return their former names."""
    unused = [entry for entry in sorted(data_cache(state_dir).iterdir()) if _last_used(entry) < limit]
    lock = FileLock.take(_lock_path(state_dir))
    if lock is None:
        return []
    renamed = []
    with lock:
        os.utime(lock.fileno())
        for entry in unused:
            # A job may have used it since.
            if not entry.name.startswith(_REMOVED) and _last_used(entry) < limit:
                with contextlib.suppress(OSError):
                    entry.rename(entry.with_name(f"{_REMOVED}{uuid.uuid4().hex[:8]}"))
                    renamed.append(entry.name)
    return renamed


def _delete(entry: Path) -> int:
    """Delete the file or directory, and return the number of bytes of its files."""
    size = sum(status.st_size for status in _files(entry))
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
    return size


def _lock_path(state_dir: Path) -> Path:
    return state_dir / "locks" / "data-cache.lock"


def _is_due(lock_path: Path) -> bool:
    """Whether the last search, or the first use, was a day ago, or in the future because the clock was set back."""
    try:
        return not 0.0 <= time.time() - lock_path.stat().st_mtime < _DAY_SECONDS
    except FileNotFoundError:
        return True


def _last_used(entry: Path) -> float:
    """The last time at which a file of the entry was read or written, in seconds since the epoch."""
    if entry.is_symlink():
        return float("inf")
    # Reading a directory, as this function does, sets its access time.
    own = entry.stat().st_mtime if entry.is_dir() else 0.0
    return max((own, *(max(status.st_mtime, status.st_atime) for status in _files(entry))))


def _files(entry: Path) -> Iterator[os.stat_result]:
    paths = (Path(folder, name) for folder, _, names in os.walk(entry) for name in names)
    for path in paths if entry.is_dir() else (entry,):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                yield status
