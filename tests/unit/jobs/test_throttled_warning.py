"""ThrottledWarning: repeated failures are logged at a readable rate."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlengine.jobs.throttled_warning import ThrottledWarning


def test_warnings_become_less_frequent_and_the_recovery_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("mlengine.jobs.throttled_warning.time", SimpleNamespace(monotonic=lambda: now))
    polling = ThrottledWarning("Polling")
    logged = {}
    for minute in range(12 * 60):
        now = 60.0 * minute
        if message := polling.failed("503"):
            logged[minute] = message
    assert list(logged)[:6] == [0, 1, 3, 7, 15, 31]
    assert len(logged) < 32, "an outage of a night must cause only few warnings"
    assert logged[0] == "Polling failed; retrying: 503"
    assert logged[7] == "Polling has failed 8 times in 7 min 00 s; retrying: 503"
    assert polling.succeeded() == "Polling works again after 720 failures in 11 h 59 min"
    assert polling.succeeded() is None
    assert polling.failed("reset") == "Polling failed; retrying: reset"
    assert polling.succeeded() == "Polling works again after 1 failure in 0 s"
