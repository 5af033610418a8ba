"""Tests the stack's folder: one stack at a time, ports that are kept or changed, leftovers of a killed stack."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from scripts import stack as stacks

from mlengine.core.errors import StackError
from mlengine.testing.airflow_home import free_port

pytestmark = pytest.mark.integration

_HOLD = """
import sys, time
from pathlib import Path
from scripts.stack import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_stack_names_the_first(tmp_path: Path) -> None:
    with stacks.Lock(tmp_path):
        (tmp_path / "running.json").write_text(json.dumps({"pid": 4711, "ui": "http://127.0.0.1:8080"}))
        with pytest.raises(StackError, match=r"running already: process 4711, with its UI at http://127\.0\.0\.1:8080"):
            stacks.Lock(tmp_path)
    with stacks.Lock(tmp_path):
        pass


def test_a_lock_is_released_when_its_process_dies(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        cwd=stacks.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StackError, match=f"process {holder.pid}, which is starting"):
            stacks.Lock(tmp_path)
    finally:
        holder.kill()
        holder.communicate()
    with stacks.Lock(tmp_path):
        pass


def test_leftover_processes_of_a_killed_stack_are_stopped(tmp_path: Path) -> None:
    left = subprocess.Popen(["sleep", "600"])
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        # The second process happens to have the PID of one of the killed stack's processes; only its start time
        # differs.
        stacks._record(tmp_path, [left.pid, stranger.pid])
        recorded = json.loads(_read(tmp_path / "running.json"))
        recorded["processes"][str(stranger.pid)] = "other-boot:1"
        (tmp_path / "running.json").write_text(json.dumps(recorded))
        with stacks.Lock(tmp_path):
            assert not psutil.pid_exists(left.pid)
            assert stranger.poll() is None
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()


def test_leftover_processes_are_found_after_the_clock_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = subprocess.Popen(["sleep", "600"])
    try:
        stacks._record(tmp_path, [left.pid])
        booted = psutil.boot_time()
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted + 1.0)  # the kernel computes it from the clock
        with stacks.Lock(tmp_path):
            assert not psutil.pid_exists(left.pid)
    finally:
        left.kill()
        left.wait()


_START = """
import subprocess, sys, time
from pathlib import Path
from scripts import stack

def start(*_, on_start, **__):
    # In place of the migration of the database.
    on_start(subprocess.Popen(["sleep", "600"], start_new_session=True))
    time.sleep(600)

stack.airflow.start = start
stack.PORTS = {"gcs": int(sys.argv[2]), "ui": int(sys.argv[3])}
with stack.Lock(Path(sys.argv[1])):
    stack.start(Path(sys.argv[1]), versions=[], load=lambda *_, **__: [])
"""


def test_leftover_processes_of_a_stack_killed_during_its_start_are_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _START, str(tmp_path), str(free_port()), str(free_port())]
    starting = subprocess.Popen(command, cwd=stacks.ROOT)
    left: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 60
        while len(json.loads(_read(tmp_path / "running.json")).get("processes", {})) < 2:
            left = psutil.Process(starting.pid).children()
            assert starting.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        left = psutil.Process(starting.pid).children()
        starting.kill()
        starting.wait()
        server = next(process for process in left if "fake-gcs-server" in process.cmdline()[0])
        assert Path(server.cwd()) == tmp_path / "gcs", "make clean finds it there"
        with stacks.Lock(tmp_path):
            assert not any(process.is_running() for process in left)
    finally:
        starting.kill()
        starting.wait()
        for process in left:
            if process.is_running():
                process.kill()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else "{}"


def test_ports_are_kept_and_a_port_in_use_is_replaced_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "PORTS", {"gcs": free_port(), "ui": free_port()})
    first, moved = stacks._ports(tmp_path)
    assert (first, moved) == (stacks.PORTS, [])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first["ui"]))
        taken.listen()
        second, moved = stacks._ports(tmp_path)
    assert second["gcs"] == first["gcs"]
    assert second["ui"] != first["ui"]
    assert moved == [f"port {first['ui']} is in use; the UI uses {second['ui']}"]
    assert stacks._ports(tmp_path) == (second, [])


def test_make_clean_does_not_delete_a_running_stack(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    (clone / "scripts").mkdir(parents=True)
    (clone / "scripts" / "clean.py").write_bytes((stacks.ROOT / "scripts" / "clean.py").read_bytes())
    command = [sys.executable, str(clone / "scripts" / "clean.py")]
    with stacks.Lock(clone / ".mlengine" / "data"):
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "make run is up" in refused.stderr
    assert (clone / ".mlengine" / "data").is_dir()
    job = subprocess.Popen(["sleep", "600"], cwd=clone / ".mlengine" / "data")
    try:
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert str(job.pid) in refused.stderr or not Path("/proc").is_dir()
    finally:
        job.kill()
        job.wait()
    assert subprocess.run(command, check=False).returncode == 0
    assert not (clone / ".mlengine").exists()
