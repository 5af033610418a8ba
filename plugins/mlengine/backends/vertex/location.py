"""Determines the project, region, endpoints and credentials for Vertex AI.

Project, region and endpoint are the settings ``vertex_project``, ``vertex_region`` and ``vertex_endpoint``, read in the
order of :mod:`mlengine.settings`, with two additions: a job file's ``region`` comes after the argument and before the
connection, and the last resort for the project is the one to which the credentials belong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mlengine import settings
from mlengine.core.errors import BackendError, StorageForbiddenError
from mlengine.storage.credentials import key_errors

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_REGION = re.compile(r"[a-z0-9-]+")
_ZONE = re.compile(r"(?P<region>[a-z]+-[a-z]+[0-9]+)-[a-z]")


@dataclass(frozen=True)
class VertexLocation:
    """Project, region and servers of Vertex AI.

    :param requested_region: the region of the argument, which has precedence.
    :param region: the region of the connection or the setting.
    :param endpoint: the URL of a server that replaces Google's in every region; ``None`` for Google's.
    """

    project: str
    requested_region: str | None = None
    region: str | None = None
    endpoint: str | None = None
    logging_endpoint: str = "https://logging.googleapis.com"

    @property
    def has_region(self) -> bool:
        """Whether there is a region even if the job file has none."""
        return bool(self.requested_region or self.region)

    def parent(self, job_file_region: str | None = None) -> str:
        """The resource name ``projects/P/locations/R`` of the location of a job.

        :raises BackendError: there is no region.
        """
        region = self.requested_region or job_file_region or self.region
        if not region:
            raise BackendError(
                "no region for the vertex backend",
                hint="give region=, 'region' in the job file or the connection, or set [mlengine] vertex_region",
            )
        return self.parent_in(region)

    def parent_in(self, region: str) -> str:
        """The resource name ``projects/P/locations/R`` for a fallback's region, which has precedence over all others.

        :raises BackendError: ``region`` is not the name of a region.
        """
        return f"projects/{self.project}/locations/{check_region(region)}"

    def server(self, region: str) -> str:
        """The URL of the server for ``region``.

        :raises BackendError: ``region`` is not the name of a region.
        """
        return self.endpoint or f"https://{check_region(region)}-aiplatform.googleapis.com"


def check_region(region: str) -> str:
    """Check that a region can be part of a host name. It may come from ``job.json``, which any trainer can write.

    :raises BackendError: the region is the name of a zone, or has characters by which the host name could be that of a
        server that must not get our credentials.
    """
    if zone := _ZONE.fullmatch(region):
        raise BackendError(f"not a region: {region!r} is a zone", hint=f"write {zone['region']}")
    if not _REGION.fullmatch(region):
        similar = region.strip().lower().replace("_", "-")
        hint = "a region has lowercase letters, digits and hyphens only"
        raise BackendError(
            f"not a region: {region!r}", hint=f"{hint}: {similar}" if _REGION.fullmatch(similar) else hint
        )
    return region


@dataclass(frozen=True)
class Connection:
    """The content of an Airflow connection; ``credentials`` is ``None`` if there is no connection."""

    extras: Mapping[str, Any]
    credentials: Any = None
    project: str | None = None

    def setting(self, name: str, argument: str | None = None) -> str | None:
        """A setting, which this connection may contain: see :mod:`mlengine.settings`; ``None`` if it is not set."""
        return settings.get(name, argument, self.extras) or None


def read_connection(gcp_conn_id: str, impersonation_chain: str | Sequence[str] | None = None) -> Connection:
    """Read a connection with the Google provider: key file, key JSON, secret, ADC, impersonation, anonymous.

    :raises BackendError: the connection does not exist, or its key cannot be read.
    """
    hook = _hook(gcp_conn_id, impersonation_chain)
    extras = _extras(hook)
    try:
        with key_errors(gcp_conn_id):
            credentials, project = hook.get_credentials_and_project_id()
    except StorageForbiddenError as error:
        raise BackendError(error.message, hint=error.hint) from error
    return Connection(extras, credentials, extras.get("project") or project)


def default_region(gcp_conn_id: str | None) -> str | None:
    """The region of the connection or the setting; ``None`` if there is none. Credentials are not read.

    :raises BackendError: the connection does not exist.
    """
    extras = {} if gcp_conn_id is None else _extras(_hook(gcp_conn_id))
    return Connection(extras).setting("vertex_region")


def _hook(gcp_conn_id: str, impersonation_chain: str | Sequence[str] | None = None) -> Any:
    """The Google provider's hook for a connection.

    :raises BackendError: the connection does not exist.
    """
    from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return GoogleBaseHook(gcp_conn_id=gcp_conn_id, impersonation_chain=impersonation_chain)
    except AirflowNotFoundException as error:
        raise BackendError(
            f"no Airflow connection {gcp_conn_id!r}", hint="create it (type google_cloud_platform), or name another"
        ) from error


def _extras(hook: Any) -> dict[str, Any]:
    # Old versions of the provider wrote extras with a long prefix; current versions still read these.
    prefix = "extra__google_cloud_platform__"
    return {name.removeprefix(prefix): value for name, value in hook.extras.items()}


def is_local(endpoint: str | None) -> bool:
    """Whether the endpoint uses plain HTTP, so that no credentials are sent to it.

    :raises BackendError: the endpoint uses plain HTTP, and is neither on loopback nor one of the hosts in the setting
        ``vertex_http_hosts``: the traffic could be read and changed.
    """
    if endpoint is None or not endpoint.startswith("http://"):
        return False
    named = {host.strip() for host in settings.get("vertex_http_hosts").split(",")}
    if urlsplit(endpoint).hostname not in _LOOPBACK | named:
        raise BackendError(
            f"plain http is for loopback only, not for {endpoint}",
            hint="use https://, or a server on 127.0.0.1; on a private network, name the host in vertex_http_hosts",
        )
    return True


def find_location(
    *,
    project: str | None,
    region: str | None,
    endpoint: str | None,
    connection: Connection,
    credentials_project: str | None = None,
) -> VertexLocation:
    """Find project, region and endpoint, except for the region of a job file, which may differ for each submission.

    :param endpoint: the endpoint, which is already resolved because the credentials depend on it.
    :raises BackendError: there is no project.
    """
    project = connection.setting("vertex_project", project) or credentials_project
    default_region = connection.setting("vertex_region")
    if not project:
        raise BackendError(
            "no Google Cloud project for the vertex backend",
            hint="give project=, or the connection's extra 'project', or set [mlengine] vertex_project",
        )
    if endpoint is None:
        return VertexLocation(project, region, default_region)
    own = endpoint.rstrip("/")
    logs = str(connection.extras.get("logging_endpoint") or own).rstrip("/")
    return VertexLocation(project, region, default_region, own, logs)


def connect(
    gcp_conn_id: str | None,
    impersonation_chain: str | Sequence[str] | None = None,
    *,
    project: str | None = None,
    region: str | None = None,
    endpoint: str | None = None,
) -> tuple[VertexLocation, Any]:
    """The location and the credentials: those of the connection, or else the application default credentials.

    :param gcp_conn_id: an Airflow connection; ``None`` for none.
    :raises BackendError: there is no project, or there are no credentials.
    """
    connection = Connection({})
    if gcp_conn_id is not None:
        connection = read_connection(gcp_conn_id, impersonation_chain)
    endpoint = connection.setting("vertex_endpoint", endpoint)
    credentials, own = connection.credentials, connection.project
    if is_local(endpoint):
        credentials = anonymous_credentials()
    elif credentials is None:
        credentials, own = default_credentials()
    found = find_location(
        project=project, region=region, endpoint=endpoint, connection=connection, credentials_project=own
    )
    return found, credentials


def default_credentials() -> tuple[Any, str | None]:
    """The application default credentials and their project.

    :raises BackendError: there are no such credentials.
    """
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        credentials, project = google.auth.default(scopes=[SCOPE])
    except DefaultCredentialsError as error:
        raise BackendError(
            f"no Google credentials: {error}",
            hint="run 'gcloud auth application-default login', or give the connection a key",
        ) from error
    return credentials, project


def anonymous_credentials() -> Any:
    from google.auth.credentials import AnonymousCredentials

    return AnonymousCredentials()  # type: ignore[no-untyped-call]
