"""Output: control characters, a closed pipe, tables and JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mlengine
from mlengine import cli
from mlengine.cli import output
from mlengine.cli.jobs import status
from mlengine.core.errors import MlengineError

HOSTILE = "job\x1b]52;c;Y3VybA==\x07\x1b[31m \u202etxt\x00"


def test_control_characters_in_a_line_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(f"first\n\t{HOSTILE}")
    assert capsys.readouterr().out == "first\n\tjob \\x202etxt\\x00\n"


def test_control_characters_in_an_error_are_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise MlengineError(HOSTILE, hint=HOSTILE)

    monkeypatch.setattr(status, "_status", fail)
    assert cli.main(["jobs", "status", "j"]) == 1
    assert "\x1b" not in capsys.readouterr().err


_CHATTY = """
import sys
from mlengine import cli
from mlengine.cli import output
from mlengine.cli.jobs import listing

def print_lines(args):
    for number in range(100_000):
        output.say(f"line {number}")
    raise AssertionError("the reader has closed stdout")

listing._list = print_lines
sys.exit(cli.main(["jobs", "list"]))
"""


def test_a_closed_pipe_ends_a_command_without_a_traceback() -> None:
    """``mlengine jobs list | head -1`` closes the pipe early."""
    env = {**os.environ, "PYTHONPATH": str(Path(mlengine.__file__).parents[1])}
    command = [sys.executable, "-c", _CHATTY]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_a_command_that_waits_notices_a_closed_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """``mlengine jobs logs JOB --follow | head -1``, while the job prints nothing."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        output.check_reader()
        os.close(reader)
        with pytest.raises(output.OutputClosedError):
            output.check_reader()
    monkeypatch.setattr(sys, "stdout", None)
    output.check_reader()


def test_json_is_ascii_and_keeps_every_character(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_json({"detail": HOSTILE})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"detail": HOSTILE}


def test_a_table_is_cut_to_the_terminal_and_complete_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    table = ("JOB", "DETAIL"), [("m/job_1", "the chief failed\nsecond line"), ("m/j", "")]
    output.say_table(*table)
    assert capsys.readouterr().out == "JOB      DETAIL\nm/job_1  the chief failed\nm/j\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    output.say_table(*table)
    assert capsys.readouterr().out == "JOB      DETAIL\nm/job_1  the chief …\nm/j\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    ("redirect", "message"),
    [(">/dev/full", "No space left on device"), (">&-", "stdout is closed"), (">&- 2>&-", "")],
)
def test_output_that_cannot_be_written_is_an_error(redirect: str, message: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(mlengine.__file__).parents[1])}
    command = (
        f"'{sys.executable}' -c 'import sys; from mlengine import cli; sys.exit(cli.main())' vertex machines {redirect}"
    )
    done = subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (f"mlengine: the output cannot be written: {message}\n" if message else "")
