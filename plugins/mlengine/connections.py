"""From what an operator was given (connection, project, region, options) to its storage client and its backend.

The only place where operators, sensor and trigger build either of them. The command line does without connections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mlengine import settings
from mlengine.backends import TrainingBackend, connected_backend
from mlengine.core.errors import SettingError, StorageError
from mlengine.core.layout import bucket_uri
from mlengine.storage.client import Storage


@dataclass(frozen=True)
class CloudAccess:
    """How an operator reaches the bucket and the training service.

    :param gcp_conn_id: an Airflow connection; ``""`` is the setting ``gcp_conn_id``, and ``None`` stands for the
        application default credentials.
    :param impersonation_chain: service account to impersonate, or a chain of them, as in Google's operators.
    :param project_id: Google Cloud project of jobs; backends in other places ignore it.
    :param region: region of jobs; likewise.
    :param backend_options: keyword arguments of the backend; ``project`` and ``region`` among them win.
    """

    gcp_conn_id: str | None = ""
    impersonation_chain: str | Sequence[str] | None = None
    project_id: str | None = None
    region: str | None = None
    backend_options: Mapping[str, Any] | None = None

    def storage(self) -> Storage:
        """The bucket's client, with these credentials."""
        self._check_impersonation()
        return connect_storage(self.gcp_conn_id, self.impersonation_chain)

    def backend(self, name: str | None = None) -> TrainingBackend:
        """The backend of that name; without a name, the configured one.

        :raises BackendError: there is none of that name.
        """
        self._check_impersonation()
        where = {"impersonation_chain": self.impersonation_chain, "project": self.project_id, "region": self.region}
        return connected_backend(
            self.setting("backend", name),
            resolve_connection(self.gcp_conn_id),
            **{**where, **(self.backend_options or {})},
        )

    def setting(self, name: str, argument: object = None) -> str:
        """A setting, by the rule of :mod:`mlengine.settings`, with this connection's extra."""
        return settings.get(name, argument, self._extra(name, argument))

    def number(self, name: str, argument: object = None) -> float:
        """Likewise, as a number.

        :raises SettingError: it is none, or it is too small.
        """
        return settings.get_float(name, argument, self._extra(name, argument))

    def integer(self, name: str, argument: object = None) -> int:
        """Likewise, as an integer.

        :raises SettingError: it is none, or it is too small.
        """
        return settings.get_int(name, argument, self._extra(name, argument))

    def configured(self, name: str) -> bool:
        """Whether the connection or the configuration has the setting, so that its default does not count."""
        return not settings.find(name, None, self._extra(name, None)).is_default

    def bucket(self, bucket: str | None = None) -> str:
        """``gs://…`` of the argument, or of the setting ``bucket``.

        :raises StorageError: neither names a bucket.
        """
        return configured_bucket(bucket, self._extra("bucket", bucket))

    def _check_impersonation(self) -> None:
        if self.impersonation_chain and resolve_connection(self.gcp_conn_id) is None:
            raise SettingError(
                "impersonation_chain needs an Airflow connection, and gcp_conn_id is None",
                hint="name a connection of type google_cloud_platform; without a key it has the application default "
                "credentials",
            )

    def _extra(self, name: str, argument: object) -> Mapping[str, Any]:
        """Nobody is asked for a connection that cannot decide."""
        connection = resolve_connection(self.gcp_conn_id)
        if argument not in (None, "") or connection is None or not settings.SETTINGS[name].extra:
            return {}
        return connection_extra(connection)


def connect_storage(gcp_conn_id: str | None = "", impersonation_chain: str | Sequence[str] | None = None) -> Storage:
    """The bucket's client, with a connection's credentials: one in each process for all its tasks and triggers.

    The connection is read when the first call needs it. A later change of the connection counts in new processes.

    :param gcp_conn_id: as in :class:`CloudAccess`.
    """
    chain = impersonation_chain or None
    return _storage(resolve_connection(gcp_conn_id), chain if chain is None or isinstance(chain, str) else tuple(chain))


def resolve_connection(gcp_conn_id: str | None) -> str | None:
    """The connection's id: that of the setting for ``""``; ``None`` stays."""
    return None if gcp_conn_id is None else settings.get("gcp_conn_id", gcp_conn_id)


@lru_cache(maxsize=16)
def connection_extra(gcp_conn_id: str) -> Mapping[str, Any]:
    """The extra of an Airflow connection, with the short names of its keys; empty if there is no such connection.

    Whoever uses the connection's credentials gets to know that it is missing.
    """
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    from mlengine.storage.credentials import plain_extras

    try:
        return plain_extras(BaseHook.get_connection(gcp_conn_id).extra_dejson)
    except AirflowNotFoundException:
        return {}


def configured_bucket(bucket: str | None, extra: Mapping[str, Any] | None = None) -> str:
    """``gs://…`` of the argument, or of the setting ``bucket``.

    :param extra: the connection's, if one is in use.
    :raises StorageError: neither names a bucket.
    """
    name = settings.get("bucket", bucket, extra)
    if not name:
        raise StorageError("no bucket", hint="give bucket= or --bucket, or set AIRFLOW__MLENGINE__BUCKET=gs://NAME")
    return bucket_uri(name)


def forget_connections() -> None:
    """Forget what was read of connections, and all clients: for tests."""
    _storage.cache_clear()
    connection_extra.cache_clear()


@lru_cache(maxsize=16)
def _storage(gcp_conn_id: str | None, impersonation_chain: str | tuple[str, ...] | None) -> Storage:
    return Storage.from_connection(gcp_conn_id, impersonation_chain)
