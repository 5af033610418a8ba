"""Progress of ``mlengine datasets add``: one line on a terminal, nothing elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from mlengine.cli.datasets.add_arguments import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_and_cleared_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    progress = Progress()
    progress("train: 8,192 rows read")
    progress("too early to be shown")
    progress.clear()
    assert screen.getvalue() == "\r\x1b[Ktrain: 8,192 rows read\r\x1b[K"


def test_progress_is_not_written_to_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    progress = Progress()
    progress("train: 8,192 rows read")
    progress.clear()
    assert log.getvalue() == ""
