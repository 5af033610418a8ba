"""A stub of the part of Airflow's REST API that ``mlengine jobs reap`` calls; ``tests/e2e`` uses the real one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class AirflowStub(ThreadingHTTPServer):
    """A server that responds as Airflow 3.3's API does, for the runs it was given."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, str] = {}
        self.tasks: dict[str, list[dict[str, Any]]] = {}
        self.uids: dict[str, str] = {}
        self.with_jobs: set[tuple[str, str]] = set()
        self.installation = ""
        self.silent = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: AirflowStub

    def do_GET(self) -> None:
        assert self.headers["Authorization"] == "Bearer secret"
        # Paths: dags/D/dagRuns/R/taskInstances/T/state-store/K and variables/V, or the beginning of one.
        parts = self.path.partition("?")[0].split("/")[3:]
        run = parts[3] if len(parts) > 3 else ""
        if self.server.silent:
            self._say(503, {"detail": "come back later"})
        elif parts[0] == "variables":
            found = self.server.installation if parts[1] == "mlengine_installation_id" else ""
            self._say(200 if found else 404, {"key": parts[1], "value": found} if found else {"detail": "not found"})
        elif len(parts) == 2:
            known = parts[1] == "dag" and self.server.runs
            self._say(200 if known else 404, {"dag_id": parts[1]} if known else {"detail": "no such DAG"})
        elif run not in self.server.runs:
            self._say(404, {"detail": "The DagRun was not found"})
        elif parts[-2:] == ["state-store", "mlengine_run_uid"]:
            assert self.path.endswith("?map_index=-1")
            uid = self.server.uids.get(run)
            self._say(200 if uid else 404, {"value": uid} if uid else {"detail": "Task state store key not found"})
        elif parts[-2:] == ["state-store", "mlengine_access"]:
            begun = (run, parts[5]) in self.server.with_jobs
            self._say(200 if begun else 404, {"value": {}} if begun else {"detail": "Task state store key not found"})
        elif len(parts) == 5 and "order_by=id" not in self.path:
            self._say(400, {"detail": "Ordering by task_id is disallowed"})  # the message of the real API
        elif len(parts) == 5:
            tasks = self.server.tasks[run]
            self._say(200, {"task_instances": tasks, "total_entries": len(tasks)})
        else:
            self._say(200, {"state": self.server.runs[run]})

    def _say(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def running() -> Iterator[AirflowStub]:
    """Start the server on a free port."""
    server = AirflowStub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
