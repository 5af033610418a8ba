"""The job's dirs: making ``train/`` and ``model/``, and removing what a dead attempt left half-written.

A dir belongs to whoever wrote ``job.json`` into it. Nothing outside this one job dir is ever touched, and nothing in a
dir whose job was claimed: a live job writes there, and a finished one's results lie there.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from mlengine.core.errors import StorageConflictError
from mlengine.core.layout import JobDir, join
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

_KEEP = ".keep"


def marks(job_dir: JobDir) -> frozenset[str]:
    """The empty objects that make the dirs, and by which a job dir is known before it is claimed."""
    return frozenset(join(folder, _KEEP) for folder in (job_dir.train, job_dir.model))


def prepare(storage: Storage, job_dir: JobDir) -> bool:
    """Make the dirs of a job that does not exist yet, clean. Returns whether anything was made or removed.

    Safe to repeat. A dir that carries a claim is left as it is.

    :raises BucketMissingError: at once, with the bucket's name; :raises StorageForbiddenError: likewise.
    """
    found = {stat.uri: stat.generation for stat in storage.ls(job_dir.uri + "/")}
    if job_dir.claim in found:
        log.info("%s belongs to a job already; left as it is", job_dir.uri)
        return False
    wanted = marks(job_dir)
    leftovers = sorted(found.keys() - wanted)
    for uri in leftovers:
        # Only the version that was seen: another process may have claimed the dir and begun to train meanwhile.
        with suppress(StorageConflictError):
            storage.delete(uri, found[uri])
    if leftovers:
        log.info(
            "removed %d leftover objects of an attempt that was never submitted, below %s", len(leftovers), job_dir.uri
        )
    for uri in sorted(wanted - found.keys()):
        storage.write(uri, b"")
    return bool(leftovers or wanted - found.keys())


def discard(storage: Storage, job_dir: JobDir) -> None:
    """Take back what :func:`prepare` made, for a job that is not needed after all. The caller knows of no claim."""
    for uri in sorted(marks(job_dir)):
        storage.delete(uri)
