"""How often a component may be restarted: a rate, not a total. A week of single crashes is no reason to give up."""

from __future__ import annotations

import time

MAX_RESTARTS = 5
WINDOW_SECONDS = 600.0
FIRST_PAUSE_SECONDS = 1.0


class RestartLimit:
    """Allows :data:`MAX_RESTARTS` restarts of one component in :data:`WINDOW_SECONDS`.

    The first restart in a window comes at once; before each later one there is a pause, twice as long each time.
    """

    def __init__(self) -> None:
        self._restarts: list[float] = []

    def next_restart(self) -> float | None:
        """When the next restart may be made, as :func:`time.monotonic` counts; ``None``: there were too many."""
        now = time.monotonic()
        self._restarts = [moment for moment in self._restarts if now - moment < WINDOW_SECONDS]
        made = len(self._restarts)
        if made >= MAX_RESTARTS:
            return None
        return now if made == 0 else now + FIRST_PAUSE_SECONDS * 2.0 ** (made - 1)

    def count(self) -> None:
        """Count a restart that is made now."""
        self._restarts.append(time.monotonic())
