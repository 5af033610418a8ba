"""The REST client of tests and `make run`: retries, logins and errors."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlengine.clients import airflow_api
from mlengine.clients.airflow_api import AirflowServer
from mlengine.core.errors import AirflowError, StackError
from mlengine.testing.airflow import Airflow, wait_until_healthy
from mlengine.testing.airflow_api import AirflowApi, DagRun, TaskRun
from mlengine.testing.airflow_home import AirflowConfig


class Server(ThreadingHTTPServer):
    """A server that sends the given responses in order and records the requests."""

    daemon_threads = True
    answers: list[tuple[int, Any]]
    asked: list[str]
    over: threading.Event


class Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(f"{self.command} {self.path}")
        status, body = (200, {"access_token": "t"}) if self.path == "/auth/token" else self.server.answers.pop(0)
        if status == 0:
            self.server.over.wait(30)  # longer than the client waits
            return
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = _answer  # noqa: N815 the base class's names

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(airflow_api, "CALL_SECONDS", 1.0)
    started = Server(("127.0.0.1", 0), Handler)
    started.answers, started.asked, started.over = [], [], threading.Event()
    thread = threading.Thread(target=started.serve_forever, daemon=True)
    thread.start()
    yield started
    started.over.set()
    started.shutdown()
    started.server_close()


@pytest.fixture
def api(server: Server) -> AirflowApi:
    return AirflowApi(f"http://127.0.0.1:{server.server_port}", "admin", "secret")


def test_one_login_serves_many_calls(server: Server, api: AirflowApi) -> None:
    server.answers = [(200, {"import_errors": []}), (200, {"import_errors": []})]
    api.import_errors()
    api.import_errors()
    assert server.asked.count("POST /auth/token") == 1


def test_an_expired_login_is_renewed(server: Server, api: AirflowApi) -> None:
    server.answers = [(401, {}), (200, {"import_errors": []})]
    assert api.import_errors() == {}
    assert server.asked.count("POST /auth/token") == 2


def test_a_given_token_is_not_renewed(server: Server) -> None:
    server.answers = [(401, {})]
    with pytest.raises(AirflowError, match="MLENGINE_AIRFLOW_TOKEN") as caught:
        AirflowServer(f"http://127.0.0.1:{server.server_port}", token="old", direct=True).call("GET", "importErrors")
    assert (caught.value.status, len(server.asked)) == (401, 1)


def test_a_404_means_not_found_only_in_airflows_format(server: Server) -> None:
    server.answers = [(404, {"detail": "no such DAG"}), (404, {})]
    airflow = AirflowServer(f"http://127.0.0.1:{server.server_port}", token="t", direct=True)
    assert airflow.find("dags/a") is None
    with pytest.raises(AirflowError, match="404"):
        airflow.find("dags/a")


def test_a_get_request_that_times_out_is_retried(server: Server, api: AirflowApi) -> None:
    server.answers = [(0, None), (0, None), (200, {"import_errors": []})]
    assert api.import_errors() == {}


def test_a_post_request_is_never_retried(server: Server, api: AirflowApi) -> None:
    server.answers = [(0, None), (200, {})]
    with pytest.raises(AirflowError, match="no response from Airflow to POST"):
        api.trigger("a_dag")
    assert server.asked.count("POST /api/v2/dags/a_dag/dagRuns") == 1


def test_a_state_is_set_once_the_database_is_free(
    server: Server, api: AirflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlengine.testing.airflow_api._PAUSES", (0.0, 0.0))
    server.answers = [(500, {}), (503, {}), (200, {})]
    api.set_paused("a_dag", paused=True)
    server.answers = [(500, {"detail": "database is locked"})] * 3
    with pytest.raises(AirflowError, match="locked"):
        api.set_paused("a_dag", paused=True)
    assert server.asked.count("PATCH /api/v2/dags/a_dag") == 6


def test_a_refusal_contains_the_reason(server: Server, api: AirflowApi) -> None:
    server.answers = [(400, {"detail": "max_steps: 0 is less than the minimum of 1"})]
    with pytest.raises(AirflowError, match="less than the minimum") as caught:
        api.trigger("a_dag", {"max_steps": 0})
    assert caught.value.status == 400


def test_a_dag_that_never_appears_is_reported_with_import_errors(server: Server, api: AirflowApi) -> None:
    error = {"filename": "dags/a.py", "stack_trace": "ImportError: no such module"}
    server.answers = [(404, {"detail": "no such DAG"}), (200, {"import_errors": [error]})]
    with pytest.raises(StackError, match="no such module"):
        api.wait_for_dag("a_dag", seconds=-1)


def test_names_cannot_change_the_url_path(server: Server, api: AirflowApi) -> None:
    server.answers = [(404, {})]
    with pytest.raises(AirflowError):
        api.run("a/../b", "r?x")
    assert server.asked[-1] == "GET /api/v2/dags/a%2F..%2Fb/dagRuns/r%3Fx"


RUN: dict[str, Any] = {"dag_id": "d", "dag_run_id": "r", "partition_key": None, "conf": {}}
TASKS: tuple[int, Any] = (200, {"task_instances": []})


def test_waiting_survives_a_restart_of_the_api_server(server: Server, api: AirflowApi) -> None:
    server.answers = [
        (503, {}),
        (200, RUN | {"state": "running"}),
        (500, {"detail": "database is locked"}),
        (200, RUN | {"state": "success"}),
        TASKS,
    ]
    run = api.wait(DagRun("d", "r", "queued", None, {}), 30.0, every=0.0)
    assert run.state == "success"


def test_the_pause_between_polls_can_depend_on_the_tasks(server: Server, api: AirflowApi) -> None:
    task = {"task_id": "wait", "state": "deferred", "try_number": 1, "duration": None}
    task |= {"map_index": -1, "start_date": None}
    server.answers = [
        (200, RUN | {"state": "running"}),
        (200, {"task_instances": [task]}),
        (503, {}),
        (200, RUN | {"state": "success"}),
        TASKS,
    ]
    seen: list[list[str | None]] = []

    def pause(tasks: list[TaskRun]) -> float:
        seen.append([task.state for task in tasks])
        return 0.0

    assert api.wait(DagRun("d", "r", "queued", None, {}), 30.0, every=pause).done
    assert seen == [["deferred"], ["deferred"]]  # a failed poll does not change the known states


def test_airflow_is_healthy_once_tasks_can_start(server: Server, api: AirflowApi, tmp_path: Path) -> None:
    """The first request of a task would otherwise block the API server while it builds the routes for tasks."""
    now = datetime.now(UTC).isoformat()
    beats = {f"latest_{name}_heartbeat": now for name in ("scheduler", "triggerer", "dag_processor")}
    names = ("scheduler", "triggerer", "dag_processor")
    healthy = {name: {key: beats[key] for key in beats if name in key} for name in names}
    server.answers = [(503, {}), (200, {"status": "healthy"}), (200, {}), (200, healthy)]
    airflow = Airflow(AirflowConfig(home=tmp_path, dags=tmp_path), port=server.server_port, password="")
    try:
        wait_until_healthy(airflow, since=datetime.now(UTC) - timedelta(minutes=1), seconds=30)
    finally:
        airflow.stop()
    assert server.asked == ["GET /execution/health"] * 2 + ["GET /api/v2/monitor/health"] * 2


def test_waiting_ends_with_the_servers_last_error(server: Server, api: AirflowApi) -> None:
    server.answers = [(503, {"detail": "starting"})]
    with pytest.raises(StackError, match=r"has not ended after -1 s; .*starting"):
        api.wait(DagRun("d", "r", "queued", None, {}), -1.0)


def test_waiting_for_a_missing_run_fails_immediately(server: Server, api: AirflowApi) -> None:
    server.answers = [(404, {"detail": "no such run"})]
    with pytest.raises(AirflowError, match="no such run"):
        api.wait(DagRun("d", "r", "queued", None, {}), 30.0)


def test_waiting_ends_when_the_check_raises(server: Server, api: AirflowApi) -> None:
    def check() -> None:
        raise StackError("the scheduler is gone")

    with pytest.raises(StackError, match="the scheduler is gone"):
        api.wait(DagRun("d", "r", "queued", None, {}), 30.0, check=check)
    assert server.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8080",
        "http://",
        "http://host:80a",
        "http://local host:8080",
        "http://[::1",
        "ftp://host",
        "http://h:0",
    ],
)
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(AirflowError, match="not an Airflow URL"):
        AirflowServer(url)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"])
def test_a_response_of_another_server_is_an_error(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        server = AirflowServer(f"http://127.0.0.1:{listener.getsockname()[1]}", token="t", direct=True)
        with pytest.raises(AirflowError, match="no response from Airflow") as caught:
            server.call("POST", "dags", {})
        thread.join()
    assert caught.value.hint == "check that the API server is running at this URL"
