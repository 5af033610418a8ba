"""The REST client against a small server: what an address, a token or a cluster can have wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from mlengine.backends.ray.access import Access
from mlengine.backends.ray.client import RayClient
from mlengine.core.errors import BackendError, BackendUnavailableError


class Server:
    """Answers each path with the next of its answers, ``(status, body)``; the last one is repeated."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, Any]]] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.partition("?")[0]
                outer.seen.append((self.command, path, dict(self.headers)))
                queue = outer.answers.get(path, [(404, "no such page")])
                status, body = queue.pop(0) if len(queue) > 1 else queue[0]
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                if status == 302:
                    self.send_header("Location", "/login")
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = answer  # noqa: N815 - names of the base class

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    thread = threading.Thread(target=one.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield one
    one.http.shutdown()
    one.http.server_close()
    thread.join()


@pytest.fixture
def client(server: Server) -> RayClient:
    return RayClient(Access(server.url, {"Authorization": "Bearer t"}), deadline=5.0, sleep=lambda _: None)


VERSION = {"version": "4", "ray_version": "2.60.0", "session_name": "s"}


def test_the_version_is_read_with_the_token(server: Server, client: RayClient) -> None:
    server.answers["/api/version"] = [(200, VERSION)]
    assert client.check_version() == "2.60.0"
    assert server.seen[0][2]["Authorization"] == "Bearer t"


@pytest.mark.parametrize("answer", [(404, "not here"), (200, "<html>"), (200, {}), (200, []), (302, "log in")])
def test_an_address_that_is_no_dashboard(server: Server, client: RayClient, answer: tuple[int, Any]) -> None:
    server.answers["/api/version"] = [answer]
    with pytest.raises(BackendError, match="is no Ray dashboard") as error:
        client.check_version()
    assert not error.value.retryable
    assert len(server.seen) == 1


def test_a_version_that_is_too_old(server: Server, client: RayClient) -> None:
    server.answers["/api/version"] = [(200, {**VERSION, "ray_version": "2.9.3"})]
    with pytest.raises(BackendError, match=r"runs Ray 2\.9\.3; 2\.40 or newer is needed"):
        client.check_version()


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_refused(server: Server, client: RayClient, status: int) -> None:
    server.answers["/api/jobs/"] = [(status, "Unauthorized")]
    with pytest.raises(BackendError, match="refuses the token") as error:
        client.list_jobs()
    assert not error.value.retryable
    assert "ray_token" in error.value.hint


def test_a_dashboard_that_is_busy_is_asked_again(server: Server, client: RayClient) -> None:
    server.answers["/api/jobs/"] = [(503, ""), (200, [{"submission_id": "a"}, {"submission_id": None}])]
    assert client.list_jobs() == [{"submission_id": "a"}]


def test_no_answer_is_not_an_answer(server: Server) -> None:
    client = RayClient(Access("http://127.0.0.1:9"), deadline=0.2, sleep=lambda _: None)
    with pytest.raises(BackendUnavailableError, match="no answer"):
        client.list_jobs()
    assert server.seen == []


def test_a_job_of_that_name_exists(server: Server, client: RayClient) -> None:
    text = "Traceback …\nValueError: Job with submission_id a already exists. Please use a different submission_id."
    server.answers["/api/jobs/"] = [(500, text)]
    assert client.submit({"submission_id": "a"}) is False


def test_a_refused_job_has_ray_s_last_line(server: Server, client: RayClient) -> None:
    server.answers["/api/jobs/"] = [(400, "Traceback …\nTypeError: runtime_env must be a dict")]
    with pytest.raises(BackendError, match="400: TypeError: runtime_env must be a dict"):
        client.submit({})


def test_a_package_is_sent_once(server: Server, client: RayClient) -> None:
    server.answers["/api/packages/gcs/p.zip"] = [(404, ""), (200, ""), (200, "")]
    client.upload("p.zip", b"data")
    client.upload("p.zip", b"data")
    assert [method for method, _, _ in server.seen] == ["GET", "PUT", "GET"]


def test_nodes_that_are_alive_are_listed(server: Server, client: RayClient) -> None:
    nodes = [{"state": "ALIVE", "resources_total": {"CPU": 4.0}}, {"state": "DEAD", "resources_total": {"CPU": 8.0}}]
    server.answers["/api/v0/nodes"] = [(200, {"result": True, "data": {"result": {"result": nodes}}})]
    assert client.nodes() == [{"CPU": 4.0}]
