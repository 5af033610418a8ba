"""Project, region, endpoints and credentials of Vertex AI.

Project, region and endpoint are the settings ``vertex_project``, ``vertex_region`` and ``vertex_endpoint``, found by
the rule of :mod:`mlengine.settings`, with two additions: a job file's ``region`` comes after the argument and before
the connection, and the last resort for the project is the one that the credentials belong to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mlengine import settings
from mlengine.core.errors import BackendError

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class Place:
    """A project, and the servers to ask.

    :param asked_region: the argument's, which wins. :param region: the connection's, or the setting's.
    :param endpoint: a server that replaces Google's in every region, ``None`` for Google's own.
    """

    project: str
    asked_region: str | None = None
    region: str | None = None
    endpoint: str | None = None
    logging_endpoint: str = "https://logging.googleapis.com"

    @property
    def has_region(self) -> bool:
        """Whether there is a region without a job file's."""
        return bool(self.asked_region or self.region)

    def parent(self, job_file_region: str | None = None) -> str:
        """``projects/P/locations/R``.

        :raises BackendError: if no region is to be found, with the places to write it.
        """
        region = self.asked_region or job_file_region or self.region
        if not region:
            raise BackendError(
                "no region for the vertex backend",
                hint="give region=, 'region' in the job file or the connection, or set [mlengine] vertex_region",
            )
        return f"projects/{self.project}/locations/{region}"

    def server(self, region: str) -> str:
        """Where the jobs of ``region`` are asked for."""
        return self.endpoint or f"https://{region}-aiplatform.googleapis.com"


@dataclass(frozen=True)
class Connection:
    """What an Airflow connection says; ``credentials`` is ``None`` where it says nothing of them."""

    extras: Mapping[str, Any]
    credentials: Any = None
    project: str | None = None

    def setting(self, name: str, argument: str | None = None) -> str | None:
        """A setting by the rule of :mod:`mlengine.settings`, with this connection; ``None`` if nothing sets it."""
        return settings.get(name, argument, self.extras) or None


def read_connection(gcp_conn_id: str, impersonation_chain: str | Sequence[str] | None = None) -> Connection:
    """The connection through the Google provider: key file, key JSON, secret, ADC, impersonation, anonymous.

    :raises BackendError: if there is no such connection.
    """
    from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        hook = GoogleBaseHook(gcp_conn_id=gcp_conn_id, impersonation_chain=impersonation_chain)
    except AirflowNotFoundException as error:
        raise BackendError(
            f"no Airflow connection {gcp_conn_id!r}", hint="create it (type google_cloud_platform), or name another"
        ) from error
    # The provider once wrote its extras with a long prefix, and still reads them so.
    prefix = "extra__google_cloud_platform__"
    extras = {name.removeprefix(prefix): value for name, value in hook.extras.items()}
    credentials, project = hook.get_credentials_and_project_id()
    return Connection(extras, credentials, extras.get("project") or project)


def is_local(endpoint: str | None) -> bool:
    """Whether the endpoint is plain http: it never sees a credential.

    :raises BackendError: if it is plain http beyond loopback and the hosts that the setting ``vertex_http_hosts``
        names: anybody on the way could read and change it.
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


def find_place(
    *,
    project: str | None,
    region: str | None,
    endpoint: str | None,
    connection: Connection,
    credentials_project: str | None = None,
) -> Place:
    """Apply the rule of this file's head, but for the job file, which each submission has its own of.

    :param endpoint: resolved already, as credentials depend on it.
    :raises BackendError: if the project is nowhere to be found, with the places to write it.
    """
    project = connection.setting("vertex_project", project) or credentials_project
    default_region = connection.setting("vertex_region")
    if not project:
        raise BackendError(
            "no Google Cloud project for the vertex backend",
            hint="give project=, or the connection's extra 'project', or set [mlengine] vertex_project",
        )
    if endpoint is None:
        return Place(project, region, default_region)
    own = endpoint.rstrip("/")
    logs = str(connection.extras.get("logging_endpoint") or own).rstrip("/")
    return Place(project, region, default_region, own, logs)


def settle(
    gcp_conn_id: str | None,
    impersonation_chain: str | Sequence[str] | None = None,
    *,
    project: str | None = None,
    region: str | None = None,
    endpoint: str | None = None,
) -> tuple[Place, Any]:
    """The place, and the credentials to go there with: of the connection, or else the application's default ones.

    :param gcp_conn_id: Airflow's connection to read, if any.
    :raises BackendError: as :func:`find_place` and :func:`default_credentials`.
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
    found = find_place(
        project=project, region=region, endpoint=endpoint, connection=connection, credentials_project=own
    )
    return found, credentials


def default_credentials() -> tuple[Any, str | None]:
    """The application default credentials and their project.

    :raises BackendError: if there are none.
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
