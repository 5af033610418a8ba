"""Removes files of jobs that have ended long ago: scratch directories, and logs that are in the bucket.

The records of a job, ``submission.json`` and ``state.json``, are kept: they say that the job was submitted and how it
ended, and the decisions about later attempts depend on it.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from mlengine.backends.local.record import Job
from mlengine.core.errors import BackendError
from mlengine.core.plural import number_of
from mlengine.runtime.file_lock import FileLock

_DAY_SECONDS = 86400.0


def remove_old(state_dir: Path, days: int, say: Callable[[str], None] = lambda _: None) -> list[str]:
    """Remove the files of jobs that ended more than ``days`` ago, and return the names of the jobs that had any.

    Logs are kept if they were not uploaded. Errors are ignored.

    :param days: 0 keeps all files.
    :param say: called with a message if anything was removed.
    """
    if not days:
        return []
    limit = time.time() - days * _DAY_SECONDS
    names = []
    for root in sorted((state_dir / "jobs").glob("*-*")):
        job = Job(root)
        # Without files, the job's state need not be read.
        if _files(job):
            with contextlib.suppress(OSError, ValueError, KeyError, BackendError):
                if _remove(job, limit):
                    names.append(job.name)
    if names:
        say(f"removed the logs and scratch directories of {number_of(len(names), 'job')}: ended {days} days ago")
    return names


def _files(job: Job) -> list[Path]:
    """The removable files and directories of a job."""
    logs = [job.logs, job.launcher_log] if job.uploaded_file.exists() else []
    return [path for path in (job.work, *logs) if path.exists()]


def _remove(job: Job, limit: float) -> bool:
    state = job.state()
    if state is None or not job.terminal() or float(state.get("ended") or time.time()) > limit:
        return False
    lock = FileLock.take(job.lock_file)
    if lock is None:  # the launcher still uploads the logs
        return False
    with lock:
        for path in _files(job):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return True
