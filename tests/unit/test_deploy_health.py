"""``deploy/health.py``: the script of docker-compose.yaml's health checks."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "health.py"
HEALTH = {"scheduler": {"status": "healthy"}, "triggerer": {"status": "unhealthy"}, "dag_processor": {"status": None}}


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(HEALTH).encode()
        self.send_response(200 if self.path == "/health" else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["/health"], 0),
        (["/health", "scheduler"], 0),
        (["/health", "triggerer"], 1),
        (["/health", "dag_processor"], 1),
        (["/health", "unknown"], 1),
        (["/other"], 1),
    ],
)
def test_only_a_healthy_response_is_healthy(url: str, words: list[str], code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), url + words[0], *words[1:]],
        env={"http_proxy": "http://127.0.0.1:1"},  # must be ignored: a proxy is for outside connections
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout.count("\n") == 1


def test_an_unreachable_server_is_unhealthy() -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), "http://127.0.0.1:1/health"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "refused" in done.stdout
