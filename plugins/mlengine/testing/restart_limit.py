"""Limits the restarts of a component by rate, not by total, so that single crashes over a week do not stop it."""

from __future__ import annotations

import time

MAX_RESTARTS = 5
WINDOW_SECONDS = 600.0
FIRST_PAUSE_SECONDS = 1.0
TOO_OFTEN = f"after {MAX_RESTARTS} restarts in {WINDOW_SECONDS / 60:.0f} minutes"  # for messages


class RestartLimit:
    """Allows :data:`MAX_RESTARTS` restarts of one component in :data:`WINDOW_SECONDS`.

    The first restart in a window is made at once. Before each later one there is a pause, which doubles each time.
    """

    def __init__(self) -> None:
        self._restarts: list[float] = []

    def next_restart(self) -> float | None:
        """The time of the next restart, as :func:`time.monotonic` counts; ``None`` if there were too many."""
        now = time.monotonic()
        self._restarts = [moment for moment in self._restarts if now - moment < WINDOW_SECONDS]
        made = len(self._restarts)
        if made >= MAX_RESTARTS:
            return None
        return now if made == 0 else now + FIRST_PAUSE_SECONDS * 2.0 ** (made - 1)

    def count(self) -> None:
        """Count a restart at this time."""
        self._restarts.append(time.monotonic())
