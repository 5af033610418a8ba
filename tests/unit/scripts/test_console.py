"""The output of `make run` without a terminal: no escape sequences, and not a line a second."""

from __future__ import annotations

import pytest
from scripts.console import Console


def test_no_escape_sequences_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.say("a line")
    for step in range(100):
        console.note(f"step {step}")
    console.say("the last line")
    said = capsys.readouterr().out
    assert "\033" not in said
    assert "\r" not in said
    assert said.splitlines() == ["a line", "step 0", "the last line"]


def test_the_line_at_the_bottom_is_rewritten(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    console = Console()
    console.note("step 1")
    console.note("step 2")
    console.say("done")
    assert capsys.readouterr().out == "step 1\r\033[Kstep 2\r\033[Kdone\n"
