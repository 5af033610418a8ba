"""The client sends its token to only one server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mlengine.clients.airflow_api import AirflowServer
from mlengine.core.errors import AirflowError


class Server:
    """An HTTP server on this machine that answers ``{}``, or redirects.

    :ivar to: where it redirects the path ``/api/v2/moved`` to.
    :ivar status: with which it does so.
    :ivar seen: path and token of each request.
    """

    def __init__(self) -> None:
        self.to, self.status = "", 302
        self.seen: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append((self.path, self.headers["Authorization"]))
                moved = self.path.endswith("/api/v2/moved")
                self.send_response(outer.status if moved else 200)
                if moved:
                    self.send_header("Location", outer.to)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_GET  # noqa: N815 the name of the base class

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    found = (Server(), Server())
    yield found
    for server in found:
        server.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_token_is_not_sent_to_another_server_after_a_redirect(servers: tuple[Server, Server], host: str) -> None:
    airflow, other = servers
    airflow.to = f"http://{host}:{other.http.server_port}/login"
    with pytest.raises(AirflowError, match=r"redirects GET .* to http://.*/login \(302\)") as caught:
        AirflowServer(airflow.url, token="secret", direct=True).call("GET", "moved")
    assert "use its URL" in caught.value.hint
    assert other.seen == []


@pytest.mark.parametrize("absolute", [True, False])
def test_a_redirect_on_the_same_server_is_followed(servers: tuple[Server, Server], absolute: bool) -> None:
    airflow, _ = servers
    airflow.to = f"{airflow.url if absolute else ''}/api/v2/here"
    assert AirflowServer(airflow.url, token="secret", direct=True).call("GET", "moved") == {}
    assert airflow.seen[-1] == ("/api/v2/here", "Bearer secret")


def test_a_redirect_that_is_not_a_url_is_an_error(servers: tuple[Server, Server]) -> None:
    airflow, _ = servers
    for airflow.to in ("http://[", "http://host:99999/", "ftp://host/"):
        with pytest.raises(AirflowError):
            AirflowServer(airflow.url, token="secret", direct=True).call("GET", "moved")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_post_is_not_repeated_as_a_get(servers: tuple[Server, Server], status: int) -> None:
    """urllib would do so, and its answer would be taken for that of the POST."""
    airflow, _ = servers
    airflow.to, airflow.status = f"{airflow.url}/api/v2/moved/", status
    with pytest.raises(AirflowError, match=rf"redirects POST .* to .*/moved/ \({status}\)"):
        AirflowServer(airflow.url, token="secret", direct=True).call("POST", "moved", {"a": 1})
    assert len(airflow.seen) == 1


def test_a_redirect_through_a_proxy(servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of a request is the one of its URL, below which Airflow may have a path."""
    proxy, other = servers
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    proxy.to = "/airflow/api/v2/here"
    assert AirflowServer("http://airflow.test/airflow", token="secret").call("GET", "moved") == {}
    assert proxy.seen[-1] == ("http://airflow.test/airflow/api/v2/here", "Bearer secret")
    proxy.to = "http://elsewhere.test/airflow/api/v2/here"
    with pytest.raises(AirflowError, match="redirects GET"):
        AirflowServer("http://airflow.test/airflow", token="secret").call("GET", "moved")
    assert other.seen == []
