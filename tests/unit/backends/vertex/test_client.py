"""The requests of the REST client, as received by a server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mlengine import __version__
from mlengine.backends.vertex.client import RestClient
from mlengine.backends.vertex.location import anonymous_credentials
from mlengine.core.errors import BackendError


class Service(HTTPServer):
    """A server that responds to each request with an error and records its headers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.agents: list[str] = []
        self.status = 403


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.server.agents.append(self.headers["User-Agent"])
        body = json.dumps({"error": {"code": self.server.status, "message": "no"}}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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
