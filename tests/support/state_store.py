"""A stand-in for Airflow's task state store, for one task of one run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any


class StateStore(dict[str, Any]):
    """A store that exists from the task's first try until the run is deleted."""

    def set(self, key: str, value: Any, *, retention: timedelta) -> None:
        assert retention == timedelta.max, "a run may be cleared after any time"
        self[key] = value
