"""The storage client of an Airflow connection, without Google's provider where that is not needed.

Importing the provider's hooks costs a task a third of a second of CPU, more than all else that a small stage does. For
the application default credentials (an empty connection, as on Google's own machines) and for servers that ask for
none, Google's own libraries do; every other kind of connection is the provider's to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlengine.settings import SETTINGS

if TYPE_CHECKING:
    from google.cloud import storage

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_PREFIX = "extra__google_cloud_platform__"
# Extras that do not change how credentials are found, or are handled here.
_UNDERSTOOD = frozenset({"is_anonymous", "num_retries", "scope", "logging_endpoint"}).union(
    *(setting.extra for setting in SETTINGS.values())
)


def client_of_connection(gcp_conn_id: str, impersonation_chain: str | Sequence[str] | None = None) -> storage.Client:
    """:raises Exception: whatever Airflow or Google's library says of the connection."""
    from airflow.sdk import BaseHook

    extras = plain_extras(BaseHook.get_connection(gcp_conn_id).extra_dejson)
    if impersonation_chain or extras.keys() - _UNDERSTOOD:
        from airflow.providers.google.cloud.hooks.gcs import GCSHook

        return GCSHook(gcp_conn_id=gcp_conn_id, impersonation_chain=impersonation_chain).get_conn()
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    if extras.get("is_anonymous"):
        nobody = AnonymousCredentials()  # type: ignore[no-untyped-call]
        return storage.Client(credentials=nobody, project=extras.get("project") or "anonymous")
    scopes = [scope.strip() for scope in str(extras.get("scope") or "").split(",") if scope.strip()] or _SCOPES
    credentials, project = google.auth.default(scopes=scopes)
    return storage.Client(credentials=credentials, project=extras.get("project") or project)


def plain_extras(extras: dict[str, Any]) -> dict[str, Any]:
    """The extras that say something, by their short names: old connections have a long prefix."""
    return {name.removeprefix(_PREFIX): value for name, value in extras.items() if value not in (None, "", False)}
