"""Signals are sent only to processes that a job started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlengine.runtime import processes
from mlengine.runtime.env_allowlist import MARK
from mlengine.runtime.processes import Process

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(code: str = "pass", mark: Path | None = None) -> subprocess.Popen[str]:
        env = {**os.environ, **({MARK: str(mark)} if mark else {})}
        code = f"import os, signal, time\n{code}\nprint('up', flush=True)\ntime.sleep(60)"
        child = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


def test_only_marked_and_recorded_processes_are_stopped(start: Start, tmp_path: Path) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    mine, stubborn = start(mark=tmp_path / "job"), start(deaf, mark=tmp_path / "job")
    recorded, other, longer = start(), start(mark=tmp_path / "other"), start(mark=tmp_path / "job2")
    known = Process.of(recorded.pid)
    assert known is not None
    reused = Process(other.pid, "another-boot:1")

    def find() -> list[Process]:
        return processes.of_job(tmp_path / "job", [known, reused])

    assert {process.pid for process in find()} == {mine.pid, stubborn.pid, recorded.pid}
    assert processes.end_all(find, 2.0) == 3
    assert [child.wait(60) for child in (mine, stubborn, recorded)] == [
        -signal.SIGTERM,
        -signal.SIGKILL,
        -signal.SIGTERM,
    ]
    assert other.poll() is None
    assert longer.poll() is None


def test_a_finished_process_is_not_alive(start: Start) -> None:
    child = start()
    process = Process.of(child.pid)
    assert process is not None
    assert process.alive()
    child.kill()
    deadline = time.monotonic() + 60
    while process.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    # It is a zombie now: it still has a PID, but no longer counts as alive.
    assert not process.alive()
    assert Process.of(child.pid) is None
    child.wait()
    assert Process.from_json(process.to_json()) == process


def test_the_current_process_belongs_to_no_job() -> None:
    assert processes.of_job(Path("/no/such/job")) == []
    assert Process.of(os.getpid()) is not None


def test_processes_are_found_by_another_path_to_the_job(start: Start, tmp_path: Path) -> None:
    """Airflow's home is a link, and a user of the command line names its target, for example."""
    (tmp_path / "real" / "job").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    children = {start(mark=tmp_path / name / "job").pid for name in ("real", "link")}
    for name in ("real", "link"):
        assert {process.pid for process in processes.of_job(tmp_path / name / "job")} == children
