"""For how long a job has been lost: ``lost.json`` in the job's folder in the bucket, so that all processes agree.

The replicas of a lost job may run on for some time. The next attempt must not start before that, whichever process
starts it, and each process of Airflow sees only a part of the time. It is measured by the bucket's clock, since those
of Airflow's machines may differ: ``lost-checked.json`` is written with every check.
"""

from __future__ import annotations

import contextlib
import json
from typing import Protocol

from mlengine.backends.ray.record import folder
from mlengine.core.errors import ObjectMissingError, StorageConflictError
from mlengine.core.job import JobHandle
from mlengine.core.layout import join
from mlengine.storage.client import ObjectStat


class Objects(Protocol):
    """The methods of :class:`mlengine.storage.client.Storage` that are used here."""

    def read(self, uri: str) -> bytes:
        """The content of an object; raises ObjectMissingError."""

    def create(self, uri: str, data: bytes, content_type: str | None = None) -> int:
        """Write an object that does not exist; raises StorageConflictError if it does."""

    def write(self, uri: str, data: bytes, content_type: str | None = None) -> int:
        """Write an object."""

    def stat(self, uri: str) -> ObjectStat | None:
        """When an object was written."""

    def delete(self, uri: str, generation: int | None = None) -> None:
        """Delete an object, if it exists."""


def lost_for(storage: Objects, handle: JobHandle, seconds: float) -> bool:
    """Whether a job has been lost for so long; if it was not seen lost before, its time begins now.

    :raises StorageError: the bucket does not answer, or cannot be written to.
    """
    first, checked = _uris(handle)
    try:
        if _is_over(storage.read(first)):
            return True
    except ObjectMissingError:
        with contextlib.suppress(StorageConflictError):
            storage.create(first, _content(over=False), "application/json")
    storage.write(checked, b"{}", "application/json")
    began, now = storage.stat(first), storage.stat(checked)
    if began is None or now is None or now.written - began.written < seconds:
        return False
    storage.write(first, _content(over=True), "application/json")
    return True


def not_lost(storage: Objects, handle: JobHandle) -> None:
    """Forget that a job was seen lost."""
    for uri in _uris(handle):
        storage.delete(uri)


def _uris(handle: JobHandle) -> tuple[str, str]:
    return join(folder(handle), "lost.json"), join(folder(handle), "lost-checked.json")


def _content(*, over: bool) -> bytes:
    return json.dumps({"over": over}).encode()


def _is_over(data: bytes) -> bool:
    try:
        return json.loads(data)["over"] is True
    except (ValueError, KeyError, TypeError):
        return False
