"""Tests the fault proxy itself: which requests fail, which pass, and that a fault that never occurred is an error."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from mlengine.core.errors import MlengineError
from mlengine.testing import faults

pytestmark = pytest.mark.integration


class _Echo(BaseHTTPRequestHandler):
    """Responds with the request's body and the server's own address, and records each request."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, bytes]]
    url = ""

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.command, self.path, body))
        answer = json.dumps({"body": body.decode(), "next": f"{self.url}/next"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Location", f"{self.url}/session")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_HEAD = do_POST  # noqa: N815


@pytest.fixture
def echo() -> Iterator[type[_Echo]]:
    class Echo(_Echo):
        seen: list[tuple[str, str, bytes]] = []  # noqa: RUF012 - one list a server

    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    Echo.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield Echo
    server.shutdown()
    server.server_close()
    thread.join()


def _ask(
    url: str, method: str = "GET", path: str = "/", body: bytes | Iterator[bytes] | None = None, timeout: float = 10
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    try:
        connection.request(method, path, body=body, encode_chunked=not isinstance(body, bytes | None))
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_the_proxy_replaces_the_servers_address_in_responses(echo: type[_Echo]) -> None:
    with faults.before(echo.url) as proxy:
        code, headers, body = _ask(proxy.url, "POST", "/a%20b?x=1", b"hello")
        assert (code, json.loads(body)) == (200, {"body": "hello", "next": f"{proxy.url}/next"})
        assert headers["Location"] == f"{proxy.url}/session"
        assert _ask(proxy.url, "HEAD", "/")[2] == b""
        assert json.loads(_ask(proxy.url, "POST", "/", iter([b"in ", b"chunks"]))[2])["body"] == "in chunks"
        assert proxy.requests[0] == faults.Request("POST", "/a b?x=1", 200, "")
    assert echo.seen[0] == ("POST", "/a%20b?x=1", b"hello")


def test_a_fault_applies_to_matching_requests_the_given_number_of_times(echo: type[_Echo]) -> None:
    with faults.before(echo.url) as proxy:
        proxy.strike(faults.status(503, b"no", {"Retry-After": "1"}), "POST", "^/jobs", body=b"name.*x", times=2)
        asked = [("GET", "/jobs", b"name x"), ("POST", "/other/jobs", b"name x"), ("POST", "/jobs", b"name y")]
        assert [_ask(proxy.url, *request)[0] for request in asked] == [200, 200, 200]
        assert proxy.unused == [r"status on POST ^/jobs with b'name.*x' in its body: 2 left"]
        answers = [_ask(proxy.url, "POST", "/jobs", b"name x") for _ in range(3)]
        assert [answer[0] for answer in answers] == [503, 503, 200]
        assert (answers[0][1]["Retry-After"], answers[0][2]) == ("1", b"no")
        assert [one.fault for one in proxy.seen("POST", "^/jobs")] == ["", "status", "status", ""]
    assert len(echo.seen) == 4


@pytest.mark.parametrize(
    ("action", "arrived"), [(faults.reset(), 0), (faults.lose_answer(), 1), (faults.stall(0.01), 0)]
)
def test_a_connection_is_reset_before_or_after_the_server_handles_the_request(
    echo: type[_Echo], action: faults.Action, arrived: int
) -> None:
    with faults.before(echo.url) as proxy:
        proxy.strike(action)
        with pytest.raises(ConnectionResetError):
            _ask(proxy.url, "POST", "/", b"x")
        assert len(echo.seen) == arrived
        assert proxy.requests[0].code == 0
        assert _ask(proxy.url)[0] == 200


def test_a_truncated_response_has_only_its_beginning(echo: type[_Echo]) -> None:
    with faults.before(echo.url) as proxy:
        whole = _ask(proxy.url, "POST", "/", b"x" * 100)[2]
        proxy.strike(faults.cut_body(20))
        connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=10)
        connection.request("POST", "/", b"x" * 100)
        response = connection.getresponse()
        assert response.getheader("Content-Length") == str(len(whole))
        assert response.read(20) == whole[:20]
        with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
            response.read()
        connection.close()


def test_a_delayed_request_is_released(echo: type[_Echo]) -> None:
    with faults.before(echo.url) as proxy:
        proxy.strike(faults.delay(300))
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(_ask, proxy.url)
            while proxy.unused:
                time.sleep(0.01)
            assert echo.seen == []
            while not answer.done():
                proxy.release()
                time.sleep(0.01)
            assert answer.result()[0] == 200


def test_stopping_the_proxy_ends_a_stall(echo: type[_Echo]) -> None:
    started = time.monotonic()
    with faults.before(echo.url) as proxy:
        proxy.strike(faults.stall(300))
        proxy.strike(faults.delay(300), path="/slow")
        with pytest.raises(TimeoutError):
            _ask(proxy.url, timeout=0.2)
        with pytest.raises(TimeoutError):
            _ask(proxy.url, path="/slow", timeout=0.2)
    assert time.monotonic() - started < 100


def test_a_fault_that_was_not_triggered_is_an_error(echo: type[_Echo]) -> None:
    def use(proxy_strict: bool, failure: Exception | None = None) -> None:
        with faults.before(echo.url, strict=proxy_strict) as proxy:
            proxy.strike(faults.reset(), "GET", "/never-requested")
            if failure:
                raise failure

    with pytest.raises(MlengineError, match=r"never struck: reset on GET /never-requested: 1 left"):
        use(proxy_strict=True)
    use(proxy_strict=False)
    with pytest.raises(ZeroDivisionError):  # the proxy does not hide the test's own failure
        use(proxy_strict=True, failure=ZeroDivisionError())


def test_a_stopped_server_gives_bad_gateway() -> None:
    with faults.before("http://127.0.0.1:9") as proxy:
        assert _ask(proxy.url)[0] == 502
