"""The scoring process: limits, environment, and cleanup. Real processes, without a framework.

A small script replaces the process. The real one runs in tests/integration/test_validation.py and test_any_model.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlengine.core.errors import DatasetError, EnvironmentBuildError, MlengineError
from mlengine.runtime import processes
from mlengine.validation import scoring_process
from mlengine.validation.measured import Measured
from mlengine.validation.scored_model import ScoredModel
from mlengine.validation.scoring_process import Limits, ScoringProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory limits need Linux")
PYTHON = Path(sys.executable)
Run = Callable[..., Measured]
SETUP = """
import json, os, sys, time
from pathlib import Path
config = json.loads(Path(sys.argv[1]).read_text())
out = Path(config["out"])
def stage(name): (out / "stage").write_text(name)
def write(name, data): (out / name).write_text(json.dumps(data))
stage("import")
"""


def process_of(folder: Path, work: Path, limits: Limits) -> ScoringProcess:
    return ScoringProcess(
        PYTHON, ScoredModel("xgboost", folder / "model.json"), folder / "rows", work=work, limits=limits
    )


@pytest.fixture
def scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs ``source`` instead of the scoring process."""

    def run(source: str, limits: Limits | None = None) -> Measured:
        script = tmp_path / "script.py"
        script.write_text(SETUP + textwrap.dedent(source))
        monkeypatch.setattr(scoring_process, "PROCESS", script)
        work = tmp_path / "work"
        work.mkdir()
        with process_of(tmp_path, work, limits or Limits(seconds=120)) as process:
            return process.measure()

    return run


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_the_process_returns_the_measurements(scoring: Run) -> None:
    measured = scoring(
        """
        import numpy
        write("model.json", {"latency_ms": 1.0})
        numpy.save(out / "model.npy", numpy.array([[0.25], [float("nan")]]))
        """
    )
    assert measured.figures == {"latency_ms": 1.0}
    assert measured.outputs is not None
    assert measured.outputs.shape == (2, 1)
    assert measured.baseline_outputs is None
    assert measured.error == ""


def test_a_model_that_hangs_is_killed_with_its_children(scoring: Run, tmp_path: Path) -> None:
    measured = scoring(
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


def test_a_process_that_left_the_group_is_killed(scoring: Run, tmp_path: Path) -> None:
    """The process is a daemon in its own session, whose parents have exited."""
    measured = scoring(
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
        write("model.json", {"latency_ms": 1.0})
        """
    )
    assert measured.figures == {"latency_ms": 1.0}
    assert gone(int((tmp_path / "work" / "out" / "daemon").read_text()))


def test_the_memory_of_child_processes_counts(scoring: Run) -> None:
    measured = scoring(
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


def test_a_fork_bomb_is_killed(scoring: Run, tmp_path: Path) -> None:
    measured = scoring(
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
    deadline = time.monotonic() + 60
    while processes.of_job(tmp_path / "work"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_size_of_a_file_is_limited(scoring: Run) -> None:
    measured = scoring(
        f"""
        import runpy
        runpy.run_path({str(scoring_process.PROCESS)!r}, run_name="scoring")["restrain"]({{}})
        try:
            os.truncate(os.open(out / "large", os.O_CREAT | os.O_WRONLY), 1 << 33)
        except OSError as error:
            write("model.json", {{"error_of_the_write": error.strerror}})
        """
    )
    assert measured.figures == {"error_of_the_write": "File too large"}


def test_the_time_before_the_model_is_loaded_does_not_count(scoring: Run) -> None:
    measured = scoring('time.sleep(2.5); stage("load"); write("model.json", {"latency_ms": 1.0})', Limits(seconds=2.0))
    assert measured.figures == {"latency_ms": 1.0}


def test_the_process_starts_before_the_rows_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process waits for a line on its stdin, and its time limits start only then."""
    script = tmp_path / "script.py"
    source = """
        (out / "started").touch()
        assert sys.stdin.readline() == "rows\\n"
        stage("load")
        write("model.json", {"rows": (Path(config["rows"]) / "columns.json").read_text()})
    """
    script.write_text(SETUP + textwrap.dedent(source))
    monkeypatch.setattr(scoring_process, "PROCESS", script)
    work = tmp_path / "work"
    with process_of(tmp_path, work, Limits(seconds=120)) as process:
        deadline = time.monotonic() + 60
        while not (work / "out" / "started").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (tmp_path / "rows").mkdir()
        (tmp_path / "rows" / "columns.json").write_text("written")
        measured = process.measure()
    assert measured.figures == {"rows": "written"}


def test_the_process_is_killed_if_the_rows_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(SETUP + '(out / "pid").write_text(str(os.getpid())); time.sleep(600)')
    monkeypatch.setattr(scoring_process, "PROCESS", script)
    pid = tmp_path / "work" / "out" / "pid"

    def fail() -> None:
        deadline = time.monotonic() + 60
        while not pid.exists() or not pid.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        raise DatasetError("the target has no value")

    with pytest.raises(DatasetError), process_of(tmp_path, tmp_path / "work", Limits()):
        fail()
    assert gone(int(pid.read_text()))


@pytest.mark.parametrize("check", ["of the process", "of all processes"])
def test_a_process_over_the_memory_limit_is_killed(scoring: Run, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    """Either of the two checks may be the first that sees the memory."""
    if check == "of all processes":
        monkeypatch.setattr(scoring_process, "_memory_exceeded", lambda *_: "")
    # Unlike the real process, this script sets no limit for itself, so the parent has to enforce it.
    measured = scoring(
        'stage("load"); used = bytearray(300_000_000); time.sleep(600)', Limits(memory_bytes=200_000_000)
    )
    assert measured.error == "The model was killed for using more than 0.2 GiB of memory at load."


def test_the_message_of_a_crash_has_signal_and_stage(scoring: Run) -> None:
    measured = scoring('stage("held-out rows"); os.abort()')
    assert "crashed its process (SIGABRT" in measured.error
    assert measured.error.endswith("at held-out rows.")


def test_a_process_that_crashes_before_the_rows_are_written_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SETUP + 'stage("load"); os.abort()')
    monkeypatch.setattr(scoring_process, "PROCESS", script)
    (work := tmp_path / "work").mkdir()
    with process_of(tmp_path, work, Limits(seconds=120)) as process:
        process._ended.result(60)
        assert "crashed its process (SIGABRT" in process.measure().error


def test_an_mlengine_error_is_reported_in_one_line(scoring: Run) -> None:
    measured = scoring(
        'write("model.json", {"error": {"stage": "load", "message": "a\\n  b" + "c" * 999}}); sys.exit(3)'
    )
    assert measured.error.startswith("The model failed at load: a bccc")
    assert len(measured.error) < 650


def test_a_failure_before_the_model_is_loaded_is_an_error(scoring: Run) -> None:
    with pytest.raises(MlengineError, match=r"exited with code 1 at import, before it loaded the model:\n(.|\n)*boom"):
        scoring('raise SystemExit("boom")')


def test_an_environment_without_the_framework_is_an_error(scoring: Run) -> None:
    with pytest.raises(EnvironmentBuildError, match="No module named 'xgboost'"):
        scoring(
            """
            write("model.json", {"error": {"stage": "import", "message": "No module named 'xgboost'"}})
            sys.exit(4)
            """
        )


def test_a_champion_that_fails_does_not_fail_the_model(scoring: Run) -> None:
    measured = scoring('write("model.json", {"latency_ms": 1.0}); stage("champion: load"); os.abort()')
    assert measured.figures == {"latency_ms": 1.0}
    assert measured.error == ""
    assert "crashed" in measured.baseline["error"]["message"]


def test_the_workers_environment_is_not_passed_on(scoring: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("AIRFLOW__CORE__FERNET_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "TF_CONFIG", "STORAGE_EMULATOR_HOST",
               "HTTPS_PROXY", "PYTHONPATH", "AWS_SECRET_ACCESS_KEY")  # fmt: skip
    for name in secrets:
        monkeypatch.setenv(name, "hunter2")
    measured = scoring(
        """
        write("model.json", {"env": dict(os.environ), "cwd": os.getcwd(), "path": sys.path, "home": str(Path.home())})
        """
    )
    assert "hunter2" not in json.dumps(measured.figures)
    assert measured.figures["cwd"] == measured.figures["home"]
    assert str(Path(scoring_process.__file__).parent) not in measured.figures["path"]


def test_the_process_exits_with_its_parent(tmp_path: Path) -> None:
    """The worker is killed with SIGKILL, which closes the stdin of the scoring process."""
    process = scoring_process.PROCESS
    child = f"""
        import runpy, threading, time
        from pathlib import Path
        listen = runpy.run_path({str(process)!r}, run_name="scoring")["listen"]
        listen()
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
        deadline = time.monotonic() + 60
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pid = int((tmp_path / "pid").read_text())
        assert alive(pid)
    finally:
        worker.kill()
        worker.wait()
    assert gone(pid)


def test_the_process_does_not_import_mlengine() -> None:
    """The process runs as a script in environments without mlengine."""
    process = scoring_process.PROCESS
    for file in process.parent.rglob("*.py"):
        assert not re.search(r"^\s*(import|from) mlengine\b", file.read_text(), re.MULTILINE), file
    done = subprocess.run(
        [sys.executable, "-I", "-S", process], check=False, capture_output=True, text=True, env=dict(os.environ)
    )
    assert "IndexError" in done.stderr  # the imports succeeded, and the argument is missing
