"""The probe's process: limits, environment, and cleanup. Real processes, without TensorFlow.

A small script replaces the probe. The probe itself runs in tests/integration/test_validation.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlengine.core.errors import EnvironmentBuildError, MlengineError
from mlengine.runtime import processes
from mlengine.validation import runner
from mlengine.validation.runner import Heldout, Limits, Measured, ServedModel, run_probe
from mlengine.validation.signature import Expectation

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory limits need Linux")
PYTHON = Path(sys.executable)
Probe = Callable[..., Measured]
SETUP = """
import json, os, sys, time
from pathlib import Path
config = json.loads(Path(sys.argv[1]).read_text())
out = Path(config["out"])
def stage(name): (out / "stage").write_text(name)
def write(name, data): (out / name).write_text(json.dumps(data))
stage("import")
"""


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Probe:
    """Runs ``source`` instead of the probe."""

    def run(source: str, limits: Limits | None = None) -> Measured:
        script = tmp_path / "script.py"
        script.write_text(SETUP + textwrap.dedent(source))
        monkeypatch.setattr(runner, "PROBE", script)
        work = tmp_path / "work"
        work.mkdir()
        heldout = Heldout(tmp_path / "images", tmp_path / "labels", 10)
        model = ServedModel(tmp_path, Expectation(), Expectation().signature)
        return run_probe(PYTHON, model, heldout, work=work, limits=limits or Limits(seconds=30))

    return run


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_it_returns_the_measurements(probe: Probe) -> None:
    measured = probe('write("model.json", {"accuracy": 1.0}); (out / "model.u16").write_bytes(b"\\x05\\x00\\xff\\xff")')
    assert measured.figures == {"accuracy": 1.0}
    assert measured.predictions == (5, 65535)
    assert measured.error == ""


def test_a_model_that_hangs_is_killed_with_its_children(probe: Probe, tmp_path: Path) -> None:
    measured = probe(
        """
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (out / "child").write_text(str(child.pid))
        stage("load")
        time.sleep(600)
        """,
        Limits(seconds=0.5),
    )
    assert measured.error == "The model was killed after 0 s at load."
    assert gone(int((tmp_path / "work" / "out" / "child").read_text()))


def test_a_process_that_left_the_group_is_killed(probe: Probe, tmp_path: Path) -> None:
    """A daemon in its own session, whose parents have exited."""
    measured = probe(
        """
        stage("load")
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                (out / "daemon").write_text(str(os.getpid()))
                time.sleep(600)
            os._exit(0)
        while not (out / "daemon").exists() or not (out / "daemon").read_text():
            time.sleep(0.01)
        write("model.json", {"accuracy": 1.0})
        """
    )
    assert measured.figures == {"accuracy": 1.0}
    assert gone(int((tmp_path / "work" / "out" / "daemon").read_text()))


def test_the_memory_of_children_counts(probe: Probe) -> None:
    measured = probe(
        """
        stage("load")
        for _ in range(3):
            if os.fork() == 0:
                memory = bytearray(100_000_000)
                time.sleep(600)
        time.sleep(600)
        """,
        Limits(memory_bytes=200_000_000),
    )
    assert measured.error == "The model was killed for using more than 0.2 GiB of memory in 4 processes at load."


def test_a_fork_bomb_is_killed(probe: Probe, tmp_path: Path) -> None:
    measured = probe(
        """
        stage("load")
        for _ in range(40):
            if os.fork() == 0:
                time.sleep(600)
        time.sleep(600)
        """,
        Limits(processes=20),
    )
    assert measured.error == "The model was killed for starting more than 20 processes at load."
    deadline = time.monotonic() + 10
    while processes.of_job(tmp_path / "work"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_size_of_a_file_is_limited(probe: Probe) -> None:
    measured = probe(
        f"""
        import runpy
        runpy.run_path({str(runner.PROBE)!r}, run_name="probe")["set_limits"]({{}})
        try:
            os.truncate(os.open(out / "large", os.O_CREAT | os.O_WRONLY), 1 << 30)
        except OSError as error:
            write("model.json", {{"error_of_the_write": error.strerror}})
        """
    )
    assert measured.figures == {"error_of_the_write": "File too large"}


def test_the_time_before_the_model_is_loaded_does_not_count(probe: Probe) -> None:
    measured = probe('time.sleep(0.6); stage("load"); write("model.json", {"accuracy": 1.0})', Limits(seconds=0.3))
    assert measured.figures == {"accuracy": 1.0}


def test_a_process_over_the_memory_limit_is_killed(probe: Probe) -> None:
    # Unlike the probe, this script sets no limit for itself, so the parent has to enforce it.
    measured = probe('stage("load"); used = bytearray(300_000_000); time.sleep(600)', Limits(memory_bytes=200_000_000))
    assert measured.error == "The model was killed for using more than 0.2 GiB of memory at load."


def test_the_message_of_a_crash_has_signal_and_stage(probe: Probe) -> None:
    measured = probe('stage("held-out scores"); os.abort()')
    assert "crashed its process (SIGABRT" in measured.error
    assert measured.error.endswith("at held-out scores.")


def test_an_error_of_ours_is_reported_in_one_line(probe: Probe) -> None:
    measured = probe('write("model.json", {"error": {"stage": "load", "message": "a\\n  b" + "c" * 999}}); sys.exit(3)')
    assert measured.error.startswith("The model failed at load: a bccc")
    assert len(measured.error) < 350


def test_a_failure_before_the_model_is_loaded_is_raised(probe: Probe) -> None:
    with pytest.raises(MlengineError, match=r"exited with code 1 at import, before it loaded the model:\n(.|\n)*boom"):
        probe('raise SystemExit("boom")')


def test_an_environment_without_tensorflow_is_raised(probe: Probe) -> None:
    with pytest.raises(EnvironmentBuildError, match="No module named 'tensorflow'"):
        probe(
            """
            write("model.json", {"error": {"stage": "import", "message": "No module named 'tensorflow'"}})
            sys.exit(4)
            """
        )


def test_a_champion_that_fails_does_not_fail_the_model(probe: Probe) -> None:
    measured = probe('write("model.json", {"accuracy": 1.0}); stage("champion: load"); os.abort()')
    assert measured.figures == {"accuracy": 1.0}
    assert measured.error == ""
    assert "crashed" in measured.baseline["error"]["message"]


def test_the_workers_environment_is_not_passed_on(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("AIRFLOW__CORE__FERNET_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "TF_CONFIG", "STORAGE_EMULATOR_HOST",
               "HTTPS_PROXY", "PYTHONPATH", "AWS_SECRET_ACCESS_KEY")  # fmt: skip
    for name in secrets:
        monkeypatch.setenv(name, "hunter2")
    measured = probe(
        """
        write("model.json", {"env": dict(os.environ), "cwd": os.getcwd(), "path": sys.path, "home": str(Path.home())})
        """
    )
    assert "hunter2" not in json.dumps(measured.figures)
    assert measured.figures["cwd"] == measured.figures["home"]
    assert str(Path(runner.__file__).parent) not in measured.figures["path"]


def test_the_probe_exits_with_its_parent(tmp_path: Path) -> None:
    """The worker is killed with SIGKILL, which closes the probe's stdin."""
    probe = Path(runner.__file__).with_name("probe.py")
    child = f"""
        import runpy, threading, time
        from pathlib import Path
        exit_with_parent = runpy.run_path({str(probe)!r}, run_name="probe")["exit_with_parent"]
        exit_with_parent()
        Path({str(tmp_path / "pid")!r}).write_text(str(__import__("os").getpid()))
        time.sleep(600)
    """
    parent = f"""
        import subprocess, sys, time
        command = [sys.executable, "-c", {textwrap.dedent(child)!r}]
        subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        time.sleep(600)
    """
    worker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(parent)])
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pid = int((tmp_path / "pid").read_text())
        assert alive(pid)
    finally:
        worker.kill()
        worker.wait()
    assert gone(pid)


def test_the_probe_does_not_import_mlengine() -> None:
    """It runs as a script in environments without mlengine."""
    probe = Path(runner.__file__).with_name("probe.py")
    assert "import mlengine" not in probe.read_text()
    assert "from mlengine" not in probe.read_text()
    done = subprocess.run(
        [sys.executable, "-I", "-S", probe], check=False, capture_output=True, text=True, env=dict(os.environ)
    )
    assert "IndexError" in done.stderr  # the imports succeeded, and the argument is missing
