"""Creates job directories with ``train/`` and ``model/``.

This module never deletes content of a job directory. A directory that the user named is used even if it is not empty.
If a directory with a generated name is not empty, the next name is tried. The only objects that are deleted are the
empty markers of a directory that was created for a job that is not needed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress

from mlengine.core.errors import MlengineError, StorageConflictError
from mlengine.core.layout import JobDir, join
from mlengine.core.plural import number_of
from mlengine.storage.client import ObjectStat, Storage

log = logging.getLogger(__name__)

# The maximum number of directories per name. Each clear of a task, and each run that is created again, uses another
# one.
MAX_DIRS = 100
_KEEP = ".keep"


def marks(job_dir: JobDir) -> frozenset[str]:
    """The empty objects that create the directories and mark a job directory before it is claimed."""
    return frozenset(join(folder, _KEEP) for folder in (job_dir.train, job_dir.model))


def numbered(job_dir: JobDir) -> Iterator[JobDir]:
    """The candidate directories of a job, in order: ``D``, ``D_2``, ``D_3``.

    :raises MlengineError: all of them were tried.
    """
    yield from (job_dir.numbered(number) for number in range(1, MAX_DIRS))
    raise MlengineError(
        f"no free job dir: {job_dir.uri} to {job_dir.numbered(MAX_DIRS - 1).uri} are in use",
        hint="remove old job dirs of this run (mlengine jobs prune), or trigger a new run",
    )


def contents(storage: Storage, job_dir: JobDir) -> list[ObjectStat]:
    """The objects in the directory, without its empty markers.

    :raises BucketMissingError: the bucket does not exist.
    :raises StorageForbiddenError: access is denied.
    """
    return [stat for stat in storage.ls(job_dir.uri + "/") if not _is_mark(stat, job_dir)]


def prepare(storage: Storage, job_dir: JobDir) -> bool:
    """Create the directories of a job, unless it is claimed already. Returns whether anything was created.

    The call can be repeated. Other objects are not changed.

    :raises BucketMissingError: the bucket does not exist.
    :raises StorageForbiddenError: access is denied.
    """
    found = {stat.uri for stat in storage.ls(job_dir.uri + "/")}
    if job_dir.claim in found:
        log.info("%s already belongs to a job; leaving it unchanged", job_dir.uri)
        return False
    missing = sorted(marks(job_dir) - found)
    for uri in missing:
        storage.write(uri, b"")
    return bool(missing)


def prepare_clean(storage: Storage, job_dir: JobDir) -> tuple[JobDir, bool]:
    """The first of ``D``, ``D_2``, … that is claimed or empty, and whether anything was created in it.

    This is for directories whose name is derived from a job's key, so that a retry gets the same directory.
    """
    chosen = next(one for one in numbered(job_dir) if is_usable(storage, one))
    return chosen, prepare(storage, chosen)


def is_usable(storage: Storage, job_dir: JobDir) -> bool:
    """Whether the directory is claimed or empty."""
    found = contents(storage, job_dir)
    if not found or any(stat.uri == job_dir.claim for stat in found):
        return True
    log.warning("skipping %s: it belongs to no job but contains %s", job_dir.uri, number_of(len(found), "object"))
    return False


def discard(storage: Storage, job_dir: JobDir, key: str) -> bool:
    """Delete the empty markers of a directory that :func:`prepare_clean` created for a job that is not needed.

    They are deleted only if the directory's name contains ``key``, no job has claimed it, and it contains nothing else.

    :param key: the digest of the key from which the directory's name was derived.
    """
    if not carries_key(job_dir, key):
        return False
    found = storage.ls(job_dir.uri + "/")
    if not all(_is_mark(stat, job_dir) for stat in found):
        return False
    for stat in found:
        with suppress(StorageConflictError):
            storage.delete(stat.uri, stat.generation)
    return bool(found)


def carries_key(job_dir: JobDir, key: str) -> bool:
    """Whether the directory's name was derived from this key by :func:`mlengine.core.job.make_job_id`.

    :param key: a digest; an empty one matches no name.
    """
    if not key:
        return False
    name, _, number = job_dir.job_id.rpartition("_")
    ends = (f"_{key[:8]}", f"_{key[:8]}_{number}") if number.isdecimal() else (f"_{key[:8]}",)
    return bool(name) and job_dir.job_id.endswith(ends)


def _is_mark(stat: ObjectStat, job_dir: JobDir) -> bool:
    return stat.size == 0 and stat.uri in marks(job_dir)
