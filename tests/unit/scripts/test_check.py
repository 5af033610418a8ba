"""``make test``: the output of a check is printed in full if it failed, and as one line if it passed."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from scripts import check
from scripts.bootstrap import ROOT
from scripts.check import Check
from scripts.skips import FILE

SAYS = "import sys; print('one'); print('== 3 passed in 1 s =='); sys.exit({})"


def checks(*codes: int, live: int | None = None) -> Callable[..., list[Check]]:
    def run(code: int) -> Callable[..., bool]:
        return partial(check._run, [sys.executable, "-c", SAYS.format(code)], folder=Path.cwd())

    made = [Check(f"check {number}", run(code)) for number, code in enumerate(codes)]
    made += [] if live is None else [Check("suite", run(live), live=True)]
    return lambda *_: made


@pytest.fixture
def run_checks(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    monkeypatch.setenv(FILE, "")  # the test run itself may have set it; restored afterwards

    def run(made: Callable[..., list[Check]]) -> tuple[int, str]:
        monkeypatch.setattr(check, "_checks", made)
        return check.main([]), capfd.readouterr().out

    return run


def test_all_checks_pass(run_checks: Callable[..., tuple[int, str]]) -> None:
    code, said = run_checks(checks(0, live=0))
    assert code == 0
    assert said.count("one\n") == 1, "only the output of the suite may be shown"
    assert "ok      check 0" in said
    assert "3 passed in 1 s\n" in said
    assert "ALL PASSED" in said


def test_a_failed_checks_output_is_printed_in_full(run_checks: Callable[..., tuple[int, str]]) -> None:
    code, said = run_checks(checks(0, 4, live=0))
    assert code == 1
    assert said.count("one\n") == 2
    assert "FAILED  check 1" in said
    assert "NOT ALL PASSED" in said


def test_a_failed_suite_fails_the_whole_check(run_checks: Callable[..., tuple[int, str]]) -> None:
    assert run_checks(checks(0, live=5))[0] == 1


def test_the_summary_names_each_skip(run_checks: Callable[..., tuple[int, str]]) -> None:
    code = f"import os; print('test_a.py::test_b: no browser', file=open(os.environ[{FILE!r}], 'a'))"
    suite = partial(check._run, [sys.executable, "-c", code], folder=Path.cwd())
    _, said = run_checks(lambda *_: [Check("suite", suite, live=True)])
    assert "  skipped test_a.py::test_b: no browser\n" in said.partition("summary")[2]


def test_output_of_checks_without_a_suite_is_shown_immediately(run_checks: Callable[..., tuple[int, str]]) -> None:
    code, said = run_checks(checks(0, 0))
    assert code == 0
    assert said.count("one\n") == 2


def test_an_unknown_check_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["lint", "typos"]) == 2
    assert "no such check: typos" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", ["-n 0", "-k name -x", "-v --durations=60"])
def test_args_of_make_test_are_passed_to_pytest(monkeypatch: pytest.MonkeyPatch, arguments: str) -> None:
    make = shutil.which("make")
    assert make
    shown = subprocess.run(
        [make, "--dry-run", "--no-print-directory", "test", f"ARGS={arguments}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()[-1]
    words = shown.split()
    got: list[Sequence[str]] = []

    def made(_: Sequence[str], given: Sequence[str]) -> list[Check]:
        got.append(given)
        return [Check("one", lambda _: True)]

    monkeypatch.setattr(check, "_checks", made)
    monkeypatch.setenv(FILE, "")
    assert check.main(words[words.index("scripts.check") + 1 :]) == 0
    assert got == [arguments.split()]


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["-n", "0"], []),
        (["-n2", "--dist=no", "-x"], ["-x"]),
        (["--numprocesses", "auto", "-k", "one and two", "--no-loadscope-reorder"], ["-k", "one and two"]),
        (["-v", "--durations=60", "-p", "no:cacheprovider"], ["-v", "--durations=60", "-p", "no:cacheprovider"]),
    ],
)
def test_the_trainers_pytest_gets_no_xdist_options(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], kept: list[str]
) -> None:
    commands: list[Sequence[str]] = []
    monkeypatch.setattr(check, "trainer_python", lambda: "python")
    monkeypatch.setattr(check, "_run", lambda command, *_, **__: commands.append(command))
    for one in check._checks(["trainer-test", "unit"], arguments):
        one.run(None)
    trainer, suite = commands
    assert trainer == ["python", "-m", "pytest", *kept]
    assert list(suite[-len(arguments) :]) == arguments


def test_selected_tests_can_exclude_those_of_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest exits with 5 if no test was selected. That is an error only if the trainer's tests are the only check."""
    monkeypatch.setattr(check, "trainer_python", lambda: "python")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: SimpleNamespace(wait=lambda: 5))
    assert check._trainer(["-k", "name"], io.BytesIO())
    assert not check._trainer(["-k", "name"], None)
    assert not check._trainer([], io.BytesIO())


def test_ctrl_c_lets_a_check_clean_up(tmp_path: Path) -> None:
    """A check is not killed while it stops the processes of its tests."""
    child = (
        "import time\n"
        "try:\n    open('started', 'w').close(); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(1); open('cleaned', 'w').close()\n"
    )
    call = f"_run([sys.executable, '-c', {child!r}], None, pathlib.Path.cwd())"
    code = f"import sys, pathlib; from scripts.check import _run; {call}"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=env, start_new_session=True)
    with process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "started").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) != 0
    assert (tmp_path / "cleaned").exists()
