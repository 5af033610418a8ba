"""Downloads the trainer's packages into ``packages/`` of the state dir, and removes those that are no longer used.

``packages/<tag>/<file name>`` holds one generation of an object. A package is needed only while an environment is
built: one that was removed is downloaded again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path

from mlengine.core.errors import EnvironmentBuildError
from mlengine.runtime.file_lock import FileLock
from mlengine.storage.client import Storage

UNUSED_DAYS = 30  # longer than any build
_TAG = re.compile(r"[0-9a-f]{24}")
_LOCK_SECONDS = 600.0


def fetch(uri: str, storage: Storage, state_dir: Path) -> Path:
    """Download a package, unless this generation of the object was downloaded before.

    :raises EnvironmentBuildError: there is no such object.
    """
    stat = storage.stat(uri)
    if stat is None:
        raise EnvironmentBuildError(
            f"no package at {uri}", hint="package the trainer again, or correct packageUris in the job file"
        )
    tag = hashlib.sha256(f"{uri} {stat.generation} {stat.crc32c}".encode()).hexdigest()[:24]
    target = state_dir / "packages" / tag / uri.rsplit("/", 1)[1]
    lock = FileLock.take(_lock_path(state_dir), wait=_LOCK_SECONDS, shared=True)
    if lock is None:
        raise EnvironmentBuildError(
            f"{_lock_path(state_dir)} is still locked after {_LOCK_SECONDS:.0f} s", hint="try again later"
        )
    with lock:
        if target.exists():
            os.utime(target.parent)  # the time of last use
        else:
            storage.download(uri, target)
    return target


def remove_unused(state_dir: Path) -> list[str]:
    """Remove the packages that were not used for :data:`UNUSED_DAYS`, and return their tags.

    Nothing is removed while another process downloads a package. Directories with other names are not touched.
    """
    folder = state_dir / "packages"
    lock = FileLock.take(_lock_path(state_dir)) if folder.is_dir() else None
    if lock is None:
        return []
    with lock:
        limit = time.time() - UNUSED_DAYS * 86400
        unused = [path for path in folder.iterdir() if _TAG.fullmatch(path.name) and path.stat().st_mtime < limit]
        for path in unused:
            shutil.rmtree(path, ignore_errors=True)
    return sorted(path.name for path in unused)


def _lock_path(state_dir: Path) -> Path:
    return state_dir / "locks" / "packages.lock"
