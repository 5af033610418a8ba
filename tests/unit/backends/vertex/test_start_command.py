"""The start command is a single Python source that old Python versions can run."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlengine.backends.vertex import bootstrap
from mlengine.backends.vertex.start_command import start_command
from mlengine.core.expansion import expand
from mlengine.runtime import constraint_lines, constraints, extras, rendezvous

MODULES = (bootstrap, constraints, constraint_lines, extras, rendezvous)


def names(source: str) -> Counter[str]:
    """The names that are defined at the top level, with their counts."""
    found: Counter[str] = Counter()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] += 1
        elif isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return found


def test_the_start_command_is_complete_and_small() -> None:
    source = start_command()
    expected: Counter[str] = Counter()
    for module in MODULES:
        expected += names(Path(str(module.__file__)).read_text())
    assert names(source) == expected
    assert set(names(source).values()) == {1}, "the modules share one namespace, so names must be unique"
    assert '"""One ' not in source, "docstrings must be removed"
    # A request has up to four pools, and each contains the command.
    assert len(source) < 20_000
    # The service expands $(NAME) in commands. The command is escaped, but contains nothing that would be expanded.
    assert expand(source, {}) == source


def test_the_start_command_is_valid_in_old_python_versions() -> None:
    ast.parse(start_command(), feature_version=(3, 8))


def test_the_start_command_does_not_import_this_project() -> None:
    assert "mlengine." not in "\n".join(line for line in start_command().splitlines() if "import" in line)
    command = [sys.executable, "-I", "-S", "-c", start_command()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert "IndexError" in done.stderr.splitlines()[-1], "only the plan may be missing"


WORLD = {"cluster": {"chief": ["c:1"], "worker": ["w:1"]}, "task": {"type": "worker", "index": 0}}
SERVICE = {"cluster": {"workerpool0": ["c:1"], "workerpool1": ["w:1"]}, "task": {"type": "workerpool1", "index": 0}}


@pytest.mark.parametrize(
    ("given", "rank"),
    [
        ({"TF_CONFIG": json.dumps(WORLD)}, "1"),
        ({"CLUSTER_SPEC": json.dumps(SERVICE)}, "1"),
        ({}, "0"),
        ({"TF_CONFIG": json.dumps(WORLD), "RANK": "5"}, "5"),
        ({"TF_CONFIG": "not JSON"}, None),
        ({"TF_CONFIG": json.dumps(WORLD), "MLENGINE_ACCELERATOR_TYPE": "TPU_V6E"}, None),
    ],
)
def test_a_replica_gets_its_rank(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], rank: str | None) -> None:
    monkeypatch.setattr(os, "environ", dict(given))
    bootstrap.join_world()
    assert os.environ.get("RANK") == rank


def test_the_driver_folders_are_added_to_the_search_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    libraries, programs = tmp_path / "nvidia" / "lib64", tmp_path / "nvidia" / "bin"
    missing = str(tmp_path / "nvidia" / "lib")
    monkeypatch.setattr(
        bootstrap, "DRIVER_FOLDERS", {"LD_LIBRARY_PATH": [str(libraries), missing], "PATH": [str(programs)]}
    )
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    bootstrap.show_driver()
    assert os.environ["PATH"] == "/usr/bin:/bin", "the paths must not change on a machine without a driver"
    assert os.environ["LD_LIBRARY_PATH"] == ""
    libraries.mkdir(parents=True)
    programs.mkdir()
    for _ in (1, 2):
        bootstrap.show_driver()
        assert os.environ["PATH"] == f"/usr/bin:/bin:{programs}"
        assert os.environ["LD_LIBRARY_PATH"] == str(libraries)


def test_the_driver_is_where_the_service_mounts_it() -> None:
    assert bootstrap.DRIVER_FOLDERS == {
        "LD_LIBRARY_PATH": ["/usr/local/nvidia/lib64", "/usr/local/nvidia/lib"],
        "PATH": ["/usr/local/nvidia/bin"],
    }


def test_a_redirect_does_not_get_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cloud Storage or the metadata server may redirect, and urllib would send the headers to any other server."""
    seen: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers["Authorization"]))
            self.send_response(302 if self.path == "/moved" else 200)
            self.send_header("Location", f"http://localhost:{server.server_port}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        bootstrap.get(f"{url}/moved", {"Authorization": "Bearer secret"})
        assert seen == [("/moved", "Bearer secret"), ("/elsewhere", None)]
        seen.clear()
        monkeypatch.setattr(bootstrap, "place", lambda: (url, {"Authorization": "Bearer secret"}))
        bootstrap.note({"job_dir": "gs://bucket/model/job", "image": "python:3.12"})
        assert [token for _, token in seen] == ["Bearer secret"]
        server.shutdown()


def test_a_connection_that_ends_within_an_answer_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = [9, 3]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(sizes.pop(0)))
            self.end_headers()
            self.wfile.write(b"abc")

        def do_POST(self) -> None:
            self.wfile.write(b"no HTTP\r\n\r\n")

        def log_message(self, *args: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert bootstrap.get(f"{url}/x", {}) == b"abc"
        assert "IncompleteRead" in capsys.readouterr().err
        monkeypatch.setattr(bootstrap, "place", lambda: (url, {}))
        bootstrap.note({"job_dir": "gs://bucket/model/job", "image": "python:3.12"})
        assert "what is installed could not be noted" in capsys.readouterr().err
        server.shutdown()
