"""Tests error messages of announcing a version to Airflow. Success is tested in ``e2e/pipelines/test_backfill.py``."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from mlengine.clients.airflow_api import AirflowServer
from mlengine.core.errors import AirflowError, AnnounceError
from mlengine.datasets.events import announce

pytestmark = pytest.mark.integration


class Answers(BaseHTTPRequestHandler):
    """The part of Airflow's API that is called, with the responses that a test provides."""

    assets: ClassVar[list[dict[str, Any]]] = []
    requests: ClassVar[list[tuple[str, Any, str | None]]] = []
    status: ClassVar[int] = 200

    def do_GET(self) -> None:
        self._answer({"assets": self.assets})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append((self.path, body, self.headers.get("Authorization")))
        self._answer({"access_token": "t0ken"} if self.path == "/auth/token" else {"id": 7})

    def _answer(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Suppress the request log, which would appear in the test's output."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(Answers, "requests", [])
    monkeypatch.setattr(Answers, "assets", [{"id": 3, "name": "dataset_mnist_2"}, {"id": 4, "name": "dataset_mnist"}])
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_event_has_the_version_as_partition_key_of_its_datasets_asset(url: str) -> None:
    assert announce(AirflowServer(url, user="u", password="p"), "mnist", "v12", {"rows": 3}) == 7
    (login, event) = Answers.requests
    assert login == ("/auth/token", {"username": "u", "password": "p"}, None)
    assert event == (
        "/api/v2/assets/events",
        {"asset_id": 4, "partition_key": "v12", "extra": {"rows": 3}},
        "Bearer t0ken",
    )


def test_a_token_is_sent_without_a_login(url: str) -> None:
    announce(AirflowServer(url, token="mine"), "mnist", "v12")
    assert [request[0] for request in Answers.requests] == ["/api/v2/assets/events"]


def test_a_dataset_without_a_waiting_dag_is_an_error(url: str) -> None:
    with pytest.raises(AnnounceError, match="no DAG waits for versions of 'letters'"):
        announce(AirflowServer(url, token="t"), "letters", "v1")


def test_a_refusal_is_reported_without_the_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "status", 403)
    with pytest.raises(AirflowError, match="403") as caught:
        announce(AirflowServer(url, user="u", password="s3cret"), "mnist", "v12")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("where", ["http://127.0.0.1:9", "ftp://somewhere", "file:///etc"])
def test_an_unreachable_or_invalid_url_is_an_error(where: str) -> None:
    with pytest.raises(AirflowError):
        announce(AirflowServer(where, token="t"), "mnist", "v12")


def test_the_url_and_the_user_are_required() -> None:
    with pytest.raises(AirflowError, match="no Airflow URL"):
        AirflowServer.from_environment(environ={})
    server = AirflowServer.from_environment(
        environ={"MLENGINE_AIRFLOW_URL": "http://a/", "MLENGINE_AIRFLOW_TOKEN": "t"}
    )
    assert server.url == "http://a"
    with pytest.raises(AirflowError, match="no Airflow credentials"):
        announce(AirflowServer("http://127.0.0.1:9"), "mnist", "v1")
