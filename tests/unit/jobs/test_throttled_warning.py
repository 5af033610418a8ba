"""What fails again and again is told at a readable pace."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlengine.jobs.throttled_warning import Complaint


def test_at_once_then_ever_more_seldom_then_that_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("mlengine.jobs.throttled_warning.time", SimpleNamespace(monotonic=lambda: now))
    look = Complaint("the look")
    said = {}
    for minute in range(12 * 60):
        now = 60.0 * minute
        if words := look.failed("503"):
            said[minute] = words
    assert list(said)[:6] == [0, 1, 3, 7, 15, 31]
    assert len(said) < 32, "a night is a page"
    assert said[0] == "the look failed, and is tried again: 503"
    assert said[7] == "the look has failed 8 times in 7 min 00 s, and is tried again: 503"
    assert look.well() == "the look succeeds again; it had failed 720 times in 11 h 59 min"
    assert look.well() is None
    assert look.failed("reset") == "the look failed, and is tried again: reset"
