"""The output of `make run` without a terminal: no escape sequences, and less than one line per second."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from scripts.bootstrap import ROOT
from scripts.console import Console, duration


def test_no_escape_sequences_are_written_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.say("a line")
    for step in range(100):
        console.note(f"step {step}")
    console.say("the last line")
    output = capsys.readouterr().out
    assert "\033" not in output
    assert "\r" not in output
    assert output.splitlines() == ["a line", "step 0", "the last line"]


def test_the_status_line_is_rewritten(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    console = Console()
    console.note("step 1")
    console.note("step 2")
    console.say("done")
    assert capsys.readouterr().out == "step 1\r\033[Kstep 2\r\033[Kdone\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.31, "8.3 s"), (59.96, "1 min 00 s"), (119.7, "2 min 00 s"), (125.2, "2 min 05 s")],
)
def test_durations_are_rounded_to_whole_minutes_and_seconds(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_closed_output_is_ignored() -> None:
    """A closed output causes no error, not even when Python exits and flushes the buffer."""
    code = "from scripts.console import Console; c = Console(); c.say('one'); c.note('two'); c.say('three')"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")])}
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
