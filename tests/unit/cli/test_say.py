"""A terminal shows what the commands print, and obeys none of it."""

from __future__ import annotations

import pytest

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
        raise MlengineError(HOSTILE, remedy=HOSTILE)

    monkeypatch.setattr(jobs, "_status", fail)
    assert cli.main(["status"]) == 1
    assert "\x1b" not in capsys.readouterr().err
