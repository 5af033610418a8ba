"""The dirs of a job: which one is free, and making ``train/`` and ``model/`` in it.

Nothing that lies in a job dir is ever deleted here. A dir that a person named is used as it is, whatever lies in it;
one of our own choice is passed over for the next name if it is not empty. The only objects that are taken back are the
empty marks of a dir that was made for a job that turned out not to be needed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress

from mlengine.core.errors import MlengineError, StorageConflictError
from mlengine.core.layout import JobDir, join
from mlengine.storage.client import ObjectStat, Storage

log = logging.getLogger(__name__)

# How many dirs one name may take: a task that is cleared takes another, and so does a run that is created again.
MAX_DIRS = 100
_KEEP = ".keep"


def marks(job_dir: JobDir) -> frozenset[str]:
    """The empty objects that make the dirs, and by which a job dir is known before it is claimed."""
    return frozenset(join(folder, _KEEP) for folder in (job_dir.train, job_dir.model))


def numbered(job_dir: JobDir) -> Iterator[JobDir]:
    """The dirs that a job may take, in order: ``D``, ``D_2``, ``D_3``.

    :raises MlengineError: when all of them were tried.
    """
    yield from (job_dir.numbered(number) for number in range(1, MAX_DIRS))
    raise MlengineError(
        f"{job_dir.uri} and {MAX_DIRS} dirs after it belong to other jobs",
        hint="remove old job dirs of this run (mlengine jobs prune), or trigger a new run",
    )


def contents(storage: Storage, job_dir: JobDir) -> list[ObjectStat]:
    """What lies in the dir, but for its empty marks.

    :raises BucketMissingError: at once, with the bucket's name; :raises StorageForbiddenError: likewise.
    """
    return [stat for stat in storage.ls(job_dir.uri + "/") if not _is_mark(stat, job_dir)]


def prepare(storage: Storage, job_dir: JobDir) -> bool:
    """Make the dirs of a job, unless it has been claimed already. Returns whether anything was made.

    Safe to repeat. Other objects stay.

    :raises BucketMissingError: at once, with the bucket's name; :raises StorageForbiddenError: likewise.
    """
    found = {stat.uri for stat in storage.ls(job_dir.uri + "/")}
    if job_dir.claim in found:
        log.info("%s belongs to a job already; left as it is", job_dir.uri)
        return False
    missing = sorted(marks(job_dir) - found)
    for uri in missing:
        storage.write(uri, b"")
    return bool(missing)


def prepare_clean(storage: Storage, job_dir: JobDir) -> tuple[JobDir, bool]:
    """The first of ``D``, ``D_2``, … that belongs to a job or is empty, and whether anything was made in it.

    For dirs whose name is made from a job's key: a retry is given the same dir.
    """
    chosen = next(one for one in numbered(job_dir) if is_usable(storage, one))
    return chosen, prepare(storage, chosen)


def is_usable(storage: Storage, job_dir: JobDir) -> bool:
    """Whether the dir belongs to a job, or is empty."""
    found = contents(storage, job_dir)
    if not found or any(stat.uri == job_dir.claim for stat in found):
        return True
    log.warning("%s belongs to no job and is not empty; its %d objects are left alone", job_dir.uri, len(found))
    return False


def discard(storage: Storage, job_dir: JobDir, key: str) -> bool:
    """Take back the empty marks of a dir that :func:`prepare_clean` made for a job that is not needed after all.

    Only in a dir whose name carries ``key``, that no job has claimed, and in which nothing else lies.

    :param key: the digest of the key that the dir's name was made from.
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
    """Whether the dir's name was made from this key by :func:`mlengine.core.job.make_job_id`.

    :param key: a digest; no name carries an empty one.
    """
    if not key:
        return False
    name, _, number = job_dir.job_id.rpartition("_")
    ends = (f"_{key[:8]}", f"_{key[:8]}_{number}") if number.isdecimal() else (f"_{key[:8]}",)
    return bool(name) and job_dir.job_id.endswith(ends)


def _is_mark(stat: ObjectStat, job_dir: JobDir) -> bool:
    return stat.size == 0 and stat.uri in marks(job_dir)
