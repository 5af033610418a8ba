"""The REST client against a small server: errors in the address, the token or the cluster."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from mlengine.backends.ray.access import Access
from mlengine.backends.ray.client import RayClient
from mlengine.core.errors import BackendError, BackendUnavailableError


class Server:
    """A server with a list of responses ``(status, body)`` for each path; the last one is repeated."""

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
                """Log nothing."""

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
def test_an_address_other_than_a_dashboard_is_refused(
    server: Server, client: RayClient, answer: tuple[int, Any]
) -> None:
    server.answers["/api/version"] = [answer]
    with pytest.raises(BackendError, match="is no Ray dashboard") as error:
        client.check_version()
    assert not error.value.retryable
    assert len(server.seen) == 1


def test_a_version_that_is_too_old_is_refused(server: Server, client: RayClient) -> None:
    server.answers["/api/version"] = [(200, {**VERSION, "ray_version": "2.8.1"})]
    with pytest.raises(BackendError, match=r"runs Ray 2\.8\.1; 2\.9 or newer is needed"):
        client.check_version()


@contextmanager
def raw_server(answer: bytes) -> Iterator[int]:
    """A port that sends ``answer`` on each connection and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection = listening.accept()[0]
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_port_that_does_not_speak_http_is_refused() -> None:
    """The ports 6379 and 10001 of a cluster speak gRPC."""
    grpc = b"\x00\x00\x18\x04\x00\x00\x00\x00\x00\x00\x04\x00@\x00\x00"
    with raw_server(grpc) as port, pytest.raises(BackendError, match="it does not answer in HTTP") as error:
        RayClient(Access(f"http://127.0.0.1:{port}"), deadline=5.0).check_version()
    assert not error.value.retryable
    assert "6379" in error.value.hint


def test_https_to_an_http_server_is_an_error_with_a_hint(server: Server) -> None:
    with pytest.raises(BackendError, match="it does not speak TLS: ") as error:
        RayClient(Access(server.url.replace("http:", "https:")), deadline=5.0).check_version()
    assert error.value.hint == "write http:// in ray_address"


def test_a_redirect_is_reported_and_not_followed(server: Server, client: RayClient) -> None:
    server.answers["/api/version"] = [(302, "log in")]
    with pytest.raises(BackendError, match="answers 302 redirected to /login"):
        client.check_version()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_an_error(server: Server, client: RayClient, status: int) -> None:
    server.answers["/api/jobs/"] = [(status, "Unauthorized")]
    with pytest.raises(BackendError, match="refuses the token") as error:
        client.list_jobs()
    assert not error.value.retryable
    assert "ray_token" in error.value.hint


def test_a_token_that_has_expired_is_read_again(server: Server) -> None:
    server.answers["/api/jobs/"] = [(401, "expired"), (200, [])]
    client = RayClient(
        Access(server.url, {"Authorization": "Bearer t"}),
        renew=lambda: Access(server.url, {"Authorization": "Bearer u"}),
        deadline=5.0,
    )
    assert client.list_jobs() == []
    assert [headers["Authorization"] for _, _, headers in server.seen] == ["Bearer t", "Bearer u"]
    server.answers["/api/jobs/"] = [(401, "expired")]
    with pytest.raises(BackendError, match="refuses the token"):
        client.list_jobs()
    assert len(server.seen) == 3, "an unchanged token must not be sent again"


def test_a_new_token_is_not_sent_to_another_address(server: Server) -> None:
    server.answers["/api/jobs/"] = [(401, "expired")]
    client = RayClient(Access(server.url), renew=lambda: Access("http://other:8265", {"Authorization": "Bearer u"}))
    with pytest.raises(BackendError, match="refuses the token"):
        client.list_jobs()
    assert client.access.address == server.url


def test_requests_to_a_starting_head_node_are_retried(server: Server, client: RayClient) -> None:
    server.answers["/api/jobs/"] = [(500, "No available agent to submit job, please try again later."), (200, {})]
    assert client.submit({"submission_id": "a"})


def test_requests_to_a_busy_dashboard_are_retried(server: Server, client: RayClient) -> None:
    server.answers["/api/jobs/"] = [(503, ""), (200, [{"submission_id": "a"}, {"submission_id": None}])]
    assert client.list_jobs() == [{"submission_id": "a"}]


def test_a_missing_response_is_an_error(server: Server) -> None:
    client = RayClient(Access("http://127.0.0.1:9"), deadline=0.2, sleep=lambda _: None)
    with pytest.raises(BackendUnavailableError, match="no answer"):
        client.list_jobs()
    assert server.seen == []


def test_a_duplicate_job_name_is_reported(server: Server, client: RayClient) -> None:
    text = "Traceback …\nValueError: Job with submission_id a already exists. Please use a different submission_id."
    server.answers["/api/jobs/"] = [(500, text)]
    assert client.submit({"submission_id": "a"}) is False


def test_a_refused_job_reports_the_last_line_of_rays_error(server: Server, client: RayClient) -> None:
    server.answers["/api/jobs/"] = [(400, "Traceback …\nTypeError: runtime_env must be a dict")]
    with pytest.raises(BackendError, match="400: TypeError: runtime_env must be a dict"):
        client.submit({})


def test_a_package_is_sent_once(server: Server, client: RayClient) -> None:
    server.answers["/api/packages/gcs/p.zip"] = [(404, ""), (200, ""), (200, "")]
    client.upload("p.zip", b"data")
    client.upload("p.zip", b"data")
    assert [method for method, _, _ in server.seen] == ["GET", "PUT", "GET"]


def test_a_job_name_cannot_address_another_path(server: Server, client: RayClient) -> None:
    """A trainer can write any name into its job.json. It must not lead to other URLs, as requests carry our token."""
    name = "../serve/applications?x="
    assert client.get(name) is None
    assert client.stop(name) is False
    path = "/api/jobs/..%2Fserve%2Fapplications%3Fx%3D"
    assert [seen[:2] for seen in server.seen] == [("GET", path), ("POST", f"{path}/stop")]


def test_nodes_that_are_alive_are_listed(server: Server, client: RayClient) -> None:
    nodes: list[Any] = [
        {"state": "ALIVE", "resources_total": {"CPU": 4.0}},
        {"state": "DEAD", "resources_total": {"CPU": 8.0}},
    ]
    server.answers["/api/v0/nodes"] = [(200, {"result": True, "data": {"result": {"result": nodes}}})]
    assert client.nodes() == [{"CPU": 4.0}]


OTHER = {"is_head_node": False}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([], True),
        ([{}], False),
        ([OTHER], True),
        ([OTHER, {"is_head_node": True, "start_time_ms": 0}], False),
        ([OTHER, {"is_head_node": True, "age": 1000.0}], False),
        ([OTHER, {"is_head_node": True, "age": 20.0}], True),
        ([OTHER, {"is_head_node": True, "age": 20.0, "state": "DEAD"}], True),
    ],
    ids=[
        "the head has not joined",
        "an unknown head",
        "only the head is missing",
        "an unknown start",
        "an old head",
        "a new head",
        "a lost head",
    ],
)
def test_nodes_may_join_while_the_head_node_is_starting(
    server: Server, client: RayClient, nodes: list[dict[str, Any]], expected: bool
) -> None:
    given = [{"state": "ALIVE", "resources_total": {"CPU": 4.0}, **node} for node in nodes]
    for node in given:
        if "age" in node:
            node["start_time_ms"] = int((time.time() - node.pop("age")) * 1000)
    server.answers["/api/v0/nodes"] = [(200, {"result": True, "data": {"result": {"result": given}}})]
    assert client.nodes_may_join(180.0) is expected
