"""What is said of something that fails again and again: at once, then ever more seldom, and that it is over.

A poll that fails decides nothing, and is made again within a minute. Who reads the task's log wants to know that it
fails, and why, and not every minute of the night.
"""

from __future__ import annotations

import time

from mlengine.jobs.progress import duration

FIRST_PAUSE = 60.0
LONGEST_PAUSE = 1800.0


class Complaint:
    """Of one thing that is tried over and over, towards one reader.

    :param what: a noun that can fail: "the look at the job".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._failures = 0
        self._since = self._due = 0.0
        self._pause = FIRST_PAUSE

    def failed(self, error: object) -> str | None:
        """It failed once more. The sentence to tell, if it is time for one."""
        now = time.monotonic()
        self._failures += 1
        if self._failures == 1:
            self._since, self._due, self._pause = now, now + FIRST_PAUSE, FIRST_PAUSE
            return f"{self._what} failed, and is tried again: {error}"
        if now < self._due:
            return None
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._due = now + self._pause
        return f"{self._what} has failed {self._failures} times in {self._took(now)}, and is tried again: {error}"

    def well(self) -> str | None:
        """It succeeded. The sentence to tell, if it had failed before."""
        failures, self._failures = self._failures, 0
        if not failures:
            return None
        times = "once" if failures == 1 else f"{failures} times"
        return f"{self._what} succeeds again; it had failed {times} in {self._took(time.monotonic())}"

    def _took(self, now: float) -> str:
        return duration(now - self._since)
