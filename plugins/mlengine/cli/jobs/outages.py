"""Repeats what is due while a service is unavailable, so that a command that waits outlasts an outage."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from mlengine.cli.output import note
from mlengine.core.errors import UNAVAILABLE

Result = TypeVar("Result")
PATIENCE_SECONDS = 900.0


def persist(call: Callable[[], Result]) -> Result:
    """Call, and repeat the call while a service is unavailable.

    :raises BackendUnavailableError, StorageUnavailableError: it was for 15 minutes.
    """
    from mlengine.jobs.following import retry_pause  # imported late, like all that a command does not need to start

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
