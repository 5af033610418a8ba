"""Reserves GPUs for the replicas of a job: all that the job needs, or none.

A reserved GPU is locked twice: by a file in the state directory, which containers can share, and by the name of an
abstract socket, which all state directories of this host share (within one network namespace). The replica inherits
both locks, so the GPU stays reserved until the launcher and the replica have ended, whatever kills them.

Processes that a replica started do not inherit the locks. So the GPUs of an earlier job whose launcher has died stay
reserved until the job's last process has ended. This holds only within one state directory.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlengine.backends.local import gpus
from mlengine.backends.local.gpus import Gpu, ReplicaId
from mlengine.backends.local.queue import Queue
from mlengine.backends.local.record import Job
from mlengine.core.errors import BackendError
from mlengine.runtime.file_lock import FileLock


@dataclass(frozen=True)
class ReservedGpu:
    """A GPU that this process has locked."""

    gpu: Gpu
    lock: FileLock
    name: socket.socket

    @classmethod
    def take(cls, gpu: Gpu, locks: Path) -> ReservedGpu | None:
        """Lock the GPU; ``None`` if another job has it.

        :param locks: the directory of the lock files.
        """
        plain = re.sub(r"[^\w-]", "_", gpu.id)
        lock = FileLock.take(locks / f"gpu-{plain}.lock")
        if lock is None:
            return None
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f"\0mlengine-gpu-{plain}")
        except OSError:
            name.close()
            lock.give_back()
            return None
        return cls(gpu, lock, name)

    @property
    def descriptors(self) -> tuple[int, int]:
        """The descriptors of both locks. A process that inherits them keeps the GPU reserved while it runs."""
        return self.lock.fileno(), self.name.fileno()

    def give_back(self) -> None:
        """Release both locks. The call can be repeated safely."""
        self.name.close()
        self.lock.give_back()


Reservation = dict[ReplicaId, list[ReservedGpu]]


def reserve(job: Job, queue: Queue, needs: Mapping[ReplicaId, int], found: Sequence[Gpu]) -> tuple[Reservation, str]:
    """Reserve the GPUs of each replica; or return no GPUs, and a message that says what the job waits for.

    GPUs are given in order of submission: a job that waits for two is not overtaken by one that needs one.

    :param found: the GPUs that the job may use.
    """
    owners: dict[str, str] = {}
    for other in queue.ahead(job.name):
        job_id, has = _gpus_of(other)
        if has is None:
            return {}, f"waiting for {gpus.number(sum(needs.values()))} after {job_id}, which was submitted earlier"
        owners |= dict.fromkeys(has, job_id)
    free = {
        gpu.id: it for gpu in found if gpu.id not in owners and (it := ReservedGpu.take(gpu, job.state_dir / "locks"))
    }
    assigned = gpus.assign(needs, [it.gpu for it in free.values()])
    chosen = {gpu.id for group in (assigned or {}).values() for gpu in group}
    for name, it in free.items():
        if name not in chosen:
            it.give_back()
    if assigned is not None:
        return {replica: [free[gpu.id] for gpu in group] for replica, group in assigned.items()}, ""
    used = [f"{gpu.name} is used by {owners.get(gpu.id, 'another job')}" for gpu in found if gpu.id not in free]
    return {}, f"waiting for {gpus.number(sum(needs.values()))}, {len(free)} free: {', '.join(used)}"


def _gpus_of(job: Job) -> tuple[str, list[str] | None]:
    """The id and the GPUs of another job; ``None`` for the GPUs if that job still waits for them."""
    stored = None
    with contextlib.suppress(BackendError):  # a job with an unreadable submission will not start
        stored = job.submission()
    if stored is None or job.terminal() or not gpus.needed(stored.submission.spec):
        return "", []
    has = (job.state() or {}).get("gpus")
    return stored.submission.job_id, None if has is None else list(has)
