"""RestartLimit: five restarts in any ten minutes, with increasing pauses, for as long as the component runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlengine.testing.restart_limit import MAX_RESTARTS, WINDOW_SECONDS, RestartLimit


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("mlengine.testing.restart_limit.time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def restart(limit: RestartLimit, clock: Clock) -> float:
    """Restart as soon as it is allowed. Returns the pause before it."""
    due = limit.next_restart()
    assert due is not None
    pause, clock.now = due - clock.now, due
    limit.count()
    return pause


def test_pauses_grow_until_the_limit_is_reached(clock: Clock) -> None:
    limit = RestartLimit()
    assert [restart(limit, clock) for _ in range(MAX_RESTARTS)] == [0.0, 1.0, 2.0, 4.0, 8.0]
    assert limit.next_restart() is None


def test_rare_restarts_are_not_limited(clock: Clock) -> None:
    limit = RestartLimit()
    for _ in range(100):
        assert restart(limit, clock) <= 8.0
        clock.now += WINDOW_SECONDS / 4


def test_the_first_restart_after_a_quiet_window_is_immediate(clock: Clock) -> None:
    limit = RestartLimit()
    for _ in range(MAX_RESTARTS):
        restart(limit, clock)
    clock.now += WINDOW_SECONDS
    assert restart(limit, clock) == 0.0
