"""Limits warnings about an action that is retried for a long time. The recovery is logged too.

The first failure is logged immediately, and further ones less and less often. A failed poll has no consequences and is
repeated within a minute. The task's log should say that polling fails, and why, but not once a minute all night.
"""

from __future__ import annotations

import time

from mlengine.jobs.progress import duration

FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 1800.0


class ThrottledWarning:
    """The warnings about one repeated action.

    :param action: the action that may fail, as the grammatical subject of the message: "Polling the job".
    """

    def __init__(self, action: str) -> None:
        self._action = action
        self._failures = 0
        self._since = self._due = 0.0
        self._pause = FIRST_PAUSE_SECONDS

    def failed(self, error: object) -> str | None:
        """Count a failure. Returns the message to log; ``None`` if it is too early for another message."""
        now = time.monotonic()
        self._failures += 1
        if self._failures == 1:
            self._since, self._due, self._pause = now, now + FIRST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS
            return f"{self._action} failed; retrying: {error}"
        if now < self._due:
            return None
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        self._due = now + self._pause
        return f"{self._action} has failed {self._failures} times in {self._elapsed(now)}; retrying: {error}"

    def succeeded(self) -> str | None:
        """Reset the count. Returns the message to log; ``None`` if nothing had failed."""
        failures, self._failures = self._failures, 0
        if not failures:
            return None
        times = "1 failure" if failures == 1 else f"{failures} failures"
        return f"{self._action} works again after {times} in {self._elapsed(time.monotonic())}"

    def _elapsed(self, now: float) -> str:
        return duration(now - self._since)
