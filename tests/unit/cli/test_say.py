"""A terminal shows what the commands print, and obeys none of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mlengine
from mlengine import cli
from mlengine.cli import jobs
from mlengine.core.errors import MlengineError

HOSTILE = "job\x1b]52;c;Y3VybA==\x07\x1b[31m \u202etxt\x00"


def test_a_line_with_orders_for_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    cli.say(f"first\n\t{HOSTILE}")
    assert capsys.readouterr().out == "first\n\tjob \\x202etxt\\x00\n"


def test_an_error_with_orders_for_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise MlengineError(HOSTILE, hint=HOSTILE)

    monkeypatch.setattr(jobs, "_status", fail)
    assert cli.main(["status"]) == 1
    assert "\x1b" not in capsys.readouterr().err


_CHATTY = """
import sys
from mlengine import cli
from mlengine.cli import jobs

def status(args):
    for number in range(100_000):
        cli.say(f"line {number}")
    raise AssertionError("nobody reads this")

jobs._status = status
sys.exit(cli.main(["status"]))
"""


def test_a_reader_that_has_enough_ends_a_command_without_a_traceback() -> None:
    """As ``mlengine jobs list | head -1`` does."""
    env = {**os.environ, "PYTHONPATH": str(Path(mlengine.__file__).parents[1])}
    command = [sys.executable, "-c", _CHATTY]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
