"""Repeats calls while a service is unavailable, so that a command that waits survives an outage."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from mlengine.cli.output import note
from mlengine.core.errors import UNAVAILABLE

Result = TypeVar("Result")
PATIENCE_SECONDS = 900.0


def persist(call: Callable[[], Result]) -> Result:
    """Make a call, and repeat it while a service is unavailable.

    :raises BackendUnavailableError, StorageUnavailableError: the service was unavailable for 15 minutes.
    """
    from mlengine.jobs.following import retry_pause  # imported late, because commands must start fast

    deadline, failures = time.monotonic() + PATIENCE_SECONDS, 0
    while True:
        try:
            return call()
        except UNAVAILABLE as error:
            if time.monotonic() > deadline:
                raise
            failures += 1
            pause = retry_pause(failures)
            note(f"mlengine: {error.message}; retrying in {pause:.0f} s")
        time.sleep(pause)
