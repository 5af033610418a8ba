"""From Airflow's words (a connection id, a backend's name and options) to the doors that do the work.

The only place where operators, sensor and trigger build a backend; the command line does without connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from mlengine import settings
from mlengine.backends import TrainingBackend, connected_backend
from mlengine.core.errors import StorageError
from mlengine.core.layout import bucket_uri
from mlengine.storage.client import Storage


@lru_cache(maxsize=16)
def connect_storage(gcp_conn_id: str | None) -> Storage:
    """The bucket, with the connection's credentials: one client a process, shared by all its triggers.

    The connection is looked up when the first call needs it; one that is edited later counts from the next process.
    """
    return Storage.from_connection(gcp_conn_id)


def connect_backend(
    name: str | None, gcp_conn_id: str | None, options: Mapping[str, Any] | None = None
) -> TrainingBackend:
    """The backend ``name`` (or the configured one), with its options.

    :raises BackendError: there is none of that name.
    """
    return connected_backend(settings.get("backend", name), gcp_conn_id, **(options or {}))


def configured_bucket(bucket: str | None) -> str:
    """``gs://…`` of the argument, or of the setting.

    :raises StorageError: neither is set.
    """
    name = settings.get("bucket", bucket)
    if not name:
        raise StorageError("no bucket", remedy="give bucket= or --bucket, or set AIRFLOW__MLENGINE__BUCKET=gs://NAME")
    return bucket_uri(name)
