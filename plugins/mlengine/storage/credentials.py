"""Creates the storage client for an Airflow connection, without Google's provider if possible.

Importing the provider's hooks takes a third of a second of CPU time, more than the rest of a small task. Connections
with the application default credentials (an empty connection) and anonymous ones need only Google's libraries. All
other connections are read by the provider.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import StorageForbiddenError
from mlengine.settings import SETTINGS

if TYPE_CHECKING:
    from google.cloud import storage

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_PREFIX = "extra__google_cloud_platform__"
# Extras that do not affect the credentials, or are handled here.
_UNDERSTOOD = frozenset({"is_anonymous", "num_retries", "scope", "logging_endpoint"}).union(
    *(setting.extra for setting in SETTINGS.values())
)


def client_of_connection(gcp_conn_id: str, impersonation_chain: str | Sequence[str] | None = None) -> storage.Client:
    """The client with the credentials of a connection.

    :raises StorageForbiddenError: the connection's key cannot be read.
    :raises Exception: any other error of Airflow or Google's library about the connection.
    """
    from airflow.sdk import BaseHook

    extras = plain_extras(BaseHook.get_connection(gcp_conn_id).extra_dejson)
    if impersonation_chain or extras.keys() - _UNDERSTOOD:
        from airflow.providers.google.cloud.hooks.gcs import GCSHook

        hook = GCSHook(gcp_conn_id=gcp_conn_id, impersonation_chain=impersonation_chain)
        with key_errors(gcp_conn_id):
            return hook.get_conn()
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    if extras.get("is_anonymous"):
        anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
        return storage.Client(credentials=anonymous, project=extras.get("project") or "anonymous")
    scopes = [scope.strip() for scope in str(extras.get("scope") or "").split(",") if scope.strip()] or _SCOPES
    credentials, project = google.auth.default(scopes=scopes)
    return storage.Client(credentials=credentials, project=extras.get("project") or project)


@contextmanager
def key_errors(gcp_conn_id: str) -> Iterator[None]:
    """Convert the errors of the Google provider about the key of a connection, which do not name the connection.

    :raises StorageForbiddenError: the key cannot be read.
    """
    from google.auth.exceptions import MalformedError

    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError, ValueError, KeyError, MalformedError) as error:
        what = f"it has no field {error}" if isinstance(error, KeyError) else str(error)
        raise StorageForbiddenError(
            f"the key of the Airflow connection {gcp_conn_id!r} cannot be read: {what}",
            hint="the key file must exist on this machine, and contain the JSON of a service account key",
        ) from error


def plain_extras(extras: dict[str, Any]) -> dict[str, Any]:
    """The extras that are set, with their names without the long prefix that old connections have."""
    return {name.removeprefix(_PREFIX): value for name, value in extras.items() if value not in (None, "", False)}
