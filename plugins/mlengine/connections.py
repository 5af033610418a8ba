"""Creates the storage client and the backend of an operator from its connection, project, region and options.

Operators, the sensor and the trigger use this module. The command line does not use connections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mlengine import settings
from mlengine.backends import TrainingBackend, connected_backend
from mlengine.core.arguments import mapping
from mlengine.core.errors import SettingError, StorageError
from mlengine.core.layout import bucket_uri
from mlengine.storage.client import Storage


@dataclass(frozen=True)
class CloudAccess:
    """The credentials and options with which an operator accesses the bucket and the training service.

    :param gcp_conn_id: the id of an Airflow connection; ``""`` for the setting ``gcp_conn_id``, ``None`` for the
        application default credentials.
    :param impersonation_chain: the service account to impersonate, or a chain of them, as in Google's operators.
    :param project_id: the Google Cloud project of jobs. Backends outside of Google Cloud ignore it.
    :param region: the region of jobs. Backends outside of Google Cloud ignore it.
    :param backend_options: keyword arguments of the backend. They have precedence over project and region.
    """

    gcp_conn_id: str | None = ""
    impersonation_chain: str | Sequence[str] | None = None
    project_id: str | None = None
    region: str | None = None
    backend_options: Mapping[str, Any] | None = None

    def storage(self) -> Storage:
        """A storage client with these credentials."""
        self._check_impersonation()
        return connect_storage(self.gcp_conn_id, self.impersonation_chain)

    def backend(self, name: str | None = None) -> TrainingBackend:
        """The backend with the given name; by default, the configured one.

        :raises BackendError: there is no such backend.
        """
        self._check_impersonation()
        where = {"impersonation_chain": self.impersonation_chain, "project": self.project_id, "region": self.region}
        return connected_backend(
            self.setting("backend", name),
            resolve_connection(self.gcp_conn_id),
            **{**where, **self.options},
        )

    @property
    def options(self) -> dict[str, Any]:
        """The backend's options.

        :raises MlengineError: ``backend_options`` is not a mapping.
        """
        return mapping("backend_options", self.backend_options)

    def setting(self, name: str, argument: object = None) -> str:
        """The value of a setting, from the sources in :mod:`mlengine.settings`, including this connection's extra."""
        return settings.get(name, argument, self._extra(name, argument))

    def number(self, name: str, argument: object = None) -> float:
        """The value of a setting as a number.

        :raises SettingError: the value is not a number, or is below the minimum.
        """
        return settings.get_float(name, argument, self._extra(name, argument))

    def integer(self, name: str, argument: object = None) -> int:
        """The value of a setting as an integer.

        :raises SettingError: the value is not an integer, or is below the minimum.
        """
        return settings.get_int(name, argument, self._extra(name, argument))

    def configured(self, name: str) -> bool:
        """Whether the connection or the configuration contains the setting."""
        return not settings.find(name, None, self._extra(name, None)).is_default

    def bucket(self, bucket: str | None = None) -> str:
        """The argument, or the setting ``bucket``, as a ``gs://`` URI.

        :raises StorageError: neither names a bucket.
        """
        return configured_bucket(bucket, self._extra("bucket", bucket))

    def _check_impersonation(self) -> None:
        if self.impersonation_chain and resolve_connection(self.gcp_conn_id) is None:
            raise SettingError(
                "impersonation_chain requires an Airflow connection, but gcp_conn_id is None",
                hint="use a connection of type google_cloud_platform; without a key, it uses the application default "
                "credentials",
            )

    def _extra(self, name: str, argument: object) -> Mapping[str, Any]:
        """The connection's extra. It is empty, and the connection is not read, if it cannot affect the setting."""
        connection = resolve_connection(self.gcp_conn_id)
        if settings.is_given(argument) or connection is None or not settings.SETTINGS[name].extra:
            return {}
        return connection_extra(connection)


def connect_storage(gcp_conn_id: str | None = "", impersonation_chain: str | Sequence[str] | None = None) -> Storage:
    """A storage client with a connection's credentials, shared by all tasks and triggers of a process.

    The connection is read at the first call. A later change of the connection applies to new processes.

    :param gcp_conn_id: see :class:`CloudAccess`.
    :param impersonation_chain: see :class:`CloudAccess`.
    """
    chain = impersonation_chain or None
    return _storage(resolve_connection(gcp_conn_id), chain if chain is None or isinstance(chain, str) else tuple(chain))


def resolve_connection(gcp_conn_id: str | None) -> str | None:
    """The id of the connection to use. ``""`` is resolved to the setting ``gcp_conn_id``; ``None`` remains ``None``."""
    return None if gcp_conn_id is None else settings.get("gcp_conn_id", gcp_conn_id)


@lru_cache(maxsize=16)
def connection_extra(gcp_conn_id: str) -> Mapping[str, Any]:
    """The extra of an Airflow connection, with the short names of its keys; empty if the connection does not exist.

    A missing connection becomes an error only when its credentials are used.
    """
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    from mlengine.storage.credentials import plain_extras

    try:
        return plain_extras(BaseHook.get_connection(gcp_conn_id).extra_dejson)
    except AirflowNotFoundException:
        return {}


def configured_bucket(bucket: str | None, extra: Mapping[str, Any] | None = None) -> str:
    """The argument, or the setting ``bucket``, as a ``gs://`` URI.

    :param extra: the extra of the connection, if one is used.
    :raises StorageError: neither names a bucket.
    """
    name = settings.get("bucket", bucket, extra)
    if not name:
        raise StorageError(
            "no bucket is configured", hint="pass bucket= or --bucket, or set AIRFLOW__MLENGINE__BUCKET=gs://NAME"
        )
    return bucket_uri(name)


def forget_connections() -> None:
    """Clear the cached connections and clients. Used by tests."""
    _storage.cache_clear()
    connection_extra.cache_clear()


@lru_cache(maxsize=16)
def _storage(gcp_conn_id: str | None, impersonation_chain: str | tuple[str, ...] | None) -> Storage:
    return Storage.from_connection(gcp_conn_id, impersonation_chain)
