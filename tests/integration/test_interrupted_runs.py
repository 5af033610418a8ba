"""Tests that an interrupted test run leaves no processes, after Ctrl-C or after its main process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
SECONDS = 600.0
# The fixture needs longer than execnet's 5 s to stop its server. The detached process is one that the test would have
# stopped.
TESTS = """
import os, subprocess, sys, time
import pytest

IDLE = [sys.executable, "-c", "import time; time.sleep(600)"]

@pytest.fixture(scope="session")
def server(tmp_path_factory):
    process = subprocess.Popen(IDLE, start_new_session=True)
    yield process
    time.sleep(7)
    process.terminate()
    process.wait()
    with open({notes!r}, "a") as notes:
        notes.write("stopped\\n")

@pytest.mark.parametrize("number", range(2))
def test_waits(server, number, tmp_path):
    clean = {{"HOME": "/"}}
    detached = subprocess.Popen(IDLE, cwd=tmp_path, env=clean, start_new_session=True)
    with open({notes!r}, "a") as notes:
        notes.write(f"{{server.pid}} {{detached.pid}}\\n")
    time.sleep(300)
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run with two workers whose tests wait. Like a run in a terminal, it is a separate process group."""
    (tmp_path / "test_it.py").write_text(TESTS.format(notes=str(tmp_path / "notes")))
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "tests.support.interrupts"]
    command += ["-p", "no:cacheprovider", "--basetemp", str(tmp_path / "temp"), str(tmp_path / "test_it.py")]
    env = {**own, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, start_new_session=True, stdout=subprocess.DEVNULL)
    yield process
    process.kill()
    process.wait()


def started(run: subprocess.Popen[bytes], notes: Path) -> list[psutil.Process]:
    """The workers, and the processes that their tests have started."""
    deadline = time.monotonic() + SECONDS
    while not notes.exists() or notes.read_text().count("\n") < 2:
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    pids = [int(pid) for pid in notes.read_text().split()]
    return [*psutil.Process(run.pid).children(), *map(psutil.Process, pids)]


@pytest.mark.parametrize("how", ["ctrl-c", "main process interrupted", "main process killed"])
def test_an_interrupted_test_run_leaves_no_process(run: subprocess.Popen[bytes], tmp_path: Path, how: str) -> None:
    processes = started(run, tmp_path / "notes")
    assert len(processes) >= 6
    if how == "ctrl-c":
        os.killpg(run.pid, signal.SIGINT)
    else:
        run.send_signal(signal.SIGINT if how == "main process interrupted" else signal.SIGKILL)
    run.wait(SECONDS)
    _, left = psutil.wait_procs(processes, SECONDS)
    assert left == []
    assert (tmp_path / "notes").read_text().count("stopped\n") == 2, "the fixtures ended"
