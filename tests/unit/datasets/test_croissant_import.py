"""Downloads of the files that Croissant metadata lists."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlengine.core.errors import DatasetError
from mlengine.datasets.croissant_import import read_croissant
from mlengine.datasets.register import Options

CONTENT = b"a,b\n1,2\n"


class Handler(BaseHTTPRequestHandler):
    """Sends :data:`CONTENT`, of which ``/cut.csv`` and ``/chunks.csv`` announce more."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        if self.path == "/chunks.csv":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(CONTENT) + (100 if self.path == "/cut.csv" else 0)))
        self.end_headers()
        self.wfile.write((b"64\r\n" if self.path == "/chunks.csv" else b"") + CONTENT)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{started.server_port}"
        started.shutdown()
        thread.join()


def imported(tmp_path: Path, url: str) -> Path:
    item = {"@type": "cr:FileObject", "@id": "data.csv", "name": "data.csv", "contentUrl": url}
    metadata = tmp_path / "croissant.json"
    metadata.write_text(json.dumps({"distribution": [item]}))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Path(read_croissant(str(metadata), Options(), scratch, lambda _: None)[0])


def test_a_file_is_downloaded(tmp_path: Path, server: str) -> None:
    assert (imported(tmp_path, f"{server}/whole.csv") / "data.csv").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["cut.csv", "chunks.csv"])
def test_a_part_of_a_file_is_not_taken_for_the_whole(tmp_path: Path, server: str, name: str) -> None:
    with pytest.raises(DatasetError, match=f"{name} cannot be downloaded: "):
        imported(tmp_path, f"{server}/{name}")
