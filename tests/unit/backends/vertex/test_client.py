"""The requests of the REST client, as received by a server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError, TransportError

from mlengine import __version__
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.backends.vertex.client import RestClient
from mlengine.backends.vertex.location import anonymous_credentials
from mlengine.core.errors import BackendError, BackendUnavailableError, StorageForbiddenError, StorageUnavailableError
from mlengine.core.job import JobHandle, JobState
from mlengine.storage.retries import errors


class Service(HTTPServer):
    """A server that responds to each request with an error and records its headers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.agents: list[str] = []
        self.status = 403
        self.body: bytes | None = None


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.server.agents.append(self.headers["User-Agent"])
        body = self.server.body
        if body is None:
            body = json.dumps({"error": {"code": self.server.status, "message": "no"}}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_each_request_names_this_library_and_its_version(service: Service) -> None:
    client = RestClient(anonymous_credentials(), direct=True)
    with pytest.raises(BackendError) as caught:
        client.call("GET", f"http://127.0.0.1:{service.server_port}/v1/x")
    assert service.agents == [f"mlengine/{__version__}"]
    # The most common reason for a refused create is a missing permission to act as the job's service account.
    assert "roles/iam.serviceAccountUser" in caught.value.hint


def _metadata_outage() -> RefreshError:
    """What google-auth raises on a machine or in a pod whose metadata server does not respond."""
    error = RefreshError("Compute Engine Metadata server unavailable")  # type: ignore[no-untyped-call]
    error.__cause__ = TransportError("connection refused")  # type: ignore[no-untyped-call]
    return error


def _impersonation_error(code: int) -> RefreshError:
    body = json.dumps({"error": {"code": code, "message": "no", "status": "X"}})
    return RefreshError("Unable to acquire impersonated credentials", body)  # type: ignore[no-untyped-call]


class NoToken(Credentials):
    """Credentials whose refresh raises errors before it succeeds."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.errors = list(errors)

    def refresh(self, request: object) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.token = "x"


TEMPORARY = [
    _metadata_outage(),
    _impersonation_error(503),
    _impersonation_error(429),
    TransportError("reset"),  # type: ignore[no-untyped-call]
    RefreshError("internal_failure", retryable=True),  # type: ignore[no-untyped-call]
]


@pytest.mark.parametrize("error", TEMPORARY, ids=str)
def test_a_request_is_repeated_while_no_access_token_can_be_obtained(service: Service, error: RefreshError) -> None:
    service.status = 200
    client = RestClient(NoToken(error, error), direct=True, sleep=lambda _: None)
    assert client.call("GET", f"http://127.0.0.1:{service.server_port}/v1/x") is not None
    assert len(service.agents) == 1


@pytest.mark.parametrize("error", TEMPORARY, ids=str)
def test_an_outage_of_access_tokens_is_temporary(error: RefreshError) -> None:
    client = RestClient(NoToken(error), direct=True, deadline=0)
    with pytest.raises(BackendUnavailableError, match="no access token"):
        client.call("GET", "http://127.0.0.1:1/v1/x")
    with pytest.raises(StorageUnavailableError, match="no access token"), errors("gs://bkt/x"):
        raise error


@pytest.mark.parametrize("error", [RefreshError("invalid_grant"), _impersonation_error(403)], ids=str)  # type: ignore[no-untyped-call]
def test_credentials_that_are_refused_are_an_error_at_once(error: RefreshError) -> None:
    client = RestClient(NoToken(error, error), direct=True)
    with pytest.raises(BackendError, match="no access token for these credentials") as caught:
        client.call("GET", "http://127.0.0.1:1/v1/x")
    assert not caught.value.retryable
    with pytest.raises(StorageForbiddenError), errors("gs://bkt/x"):
        raise error


NOT_FROM_THE_SERVICE = [b"<html>Sign in</html>", b"", b"null", b'"OK"', b"[]", b'{"customJobs": [{"na']


@pytest.mark.parametrize("body", NOT_FROM_THE_SERVICE)
def test_a_page_of_a_proxy_is_no_answer(service: Service, body: bytes) -> None:
    service.status, service.body = 200, body
    url = f"http://127.0.0.1:{service.server_port}"
    client = RestClient(anonymous_credentials(), direct=True, deadline=0)
    backend = VertexBackend(project="p", region="us-central1", endpoint=url, gcp_conn_id=None, client=client)
    handle = JobHandle("vertex", "projects/p/locations/us-central1/customJobs/1", "j", 1, "gs://bkt/m/j")
    calls: list[Callable[[], object]] = [
        lambda: backend.find("a" * 40),  # an empty list would let a second job be submitted
        lambda: backend.cancel(handle),
        lambda: backend.describe([handle]),
        lambda: backend.logs(handle, {"since": "2026-11-30T00:00:00Z", "window": []}),
    ]
    for call in calls:
        with pytest.raises(BackendUnavailableError, match="not of the service"):
            call()
    assert client.create(f"{url}/v1/x", {}) is None


def test_a_job_is_missing_only_if_the_service_says_so(service: Service) -> None:
    service.status = 404
    url = f"http://127.0.0.1:{service.server_port}"
    client = RestClient(anonymous_credentials(), direct=True)
    backend = VertexBackend(project="p", region="us-central1", endpoint=url, gcp_conn_id=None, client=client)
    handle = JobHandle("vertex", "projects/p/locations/us-central1/customJobs/1", "j", 1, "gs://bkt/m/j")
    assert backend.describe([handle])[0].state is JobState.FAILED
    backend.cancel(handle)
    service.body = b"<html>404 Not Found</html>"
    calls: list[Callable[[], object]] = [lambda: backend.describe([handle]), lambda: backend.cancel(handle)]
    for call in calls:
        with pytest.raises(BackendError, match="404 Not Found") as caught:
            call()
        assert "endpoint" in caught.value.hint
