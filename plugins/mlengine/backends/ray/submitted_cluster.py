"""Records the cluster to which a job was submitted: ``cluster.json`` in the job's folder in the bucket.

The setting ``ray_address`` may change while a job runs. The new cluster does not know the job. Without this record, the
job would be considered lost, and the next attempt would train a second time. The recorded address is only compared, and
no request is sent to it: tokens and headers are sent only to the address in the settings.
"""

from __future__ import annotations

import json
from typing import Protocol

from mlengine.backends.ray.record import cluster_uri, folder
from mlengine.core.errors import BackendError, ObjectMissingError, StorageConflictError
from mlengine.core.job import JobHandle


class Objects(Protocol):
    """The methods of :class:`mlengine.storage.client.Storage` that this module uses."""

    def read(self, uri: str) -> bytes:
        """The content of an object; raises ObjectMissingError."""

    def create(self, uri: str, data: bytes, content_type: str | None = None) -> int:
        """Write an object that does not exist; raises StorageConflictError if it does."""

    def delete(self, uri: str, generation: int | None = None) -> None:
        """Delete an object, if it exists."""


def record_cluster(storage: Objects, handle: JobHandle, address: str) -> None:
    """Record that a job is submitted to the cluster at ``address``. The call may be repeated.

    :raises BackendError: the job may have been submitted to another cluster.
    """
    try:
        storage.create(cluster_uri(folder(handle)), json.dumps({"address": address}).encode(), "application/json")
    except StorageConflictError:
        check(storage, handle, address)


def forget(storage: Objects, handle: JobHandle) -> None:
    """Delete the record after the cluster has refused the job, so that it may be submitted to another cluster."""
    storage.delete(cluster_uri(folder(handle)))


def check(storage: Objects, handle: JobHandle, address: str) -> None:
    """Check that a job that the cluster at ``address`` does not know was not submitted to another one.

    :raises BackendError: the job was submitted to another cluster.
    """
    uri = cluster_uri(folder(handle))
    try:
        recorded = json.loads(storage.read(uri))["address"]
    except ObjectMissingError:
        return
    except (ValueError, KeyError, TypeError) as error:
        raise BackendError(f"{uri} cannot be read: {error!r}", hint="delete it if the job no longer runs") from error
    if recorded != address:
        raise BackendError(
            f"{handle.name} was submitted to the Ray cluster at {recorded}, and ray_address is now {address}",
            hint=f"set ray_address to {recorded} until the job has ended; if that cluster is gone, delete {uri}",
        )
