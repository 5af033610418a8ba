"""Writes a job's state file, even if the disk is full."""

from __future__ import annotations

import time
from logging import getLogger
from typing import Any

from mlengine.backends.local.record import Job
from mlengine.core.job import JobState
from mlengine.runtime import json_files

log = getLogger("mlengine.local")

_RESERVE_BYTES = 64 << 10
_INSIST_SECONDS = 60.0


class StateFile:
    """``state.json`` of one job. The caller holds the file lock.

    A small file reserves disk space, so that a job that fills the disk can still write its final state.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._reserve = job.root / "reserve"
        self._data: dict[str, Any] = {}
        try:
            self._reserve.write_bytes(b"\0" * _RESERVE_BYTES)
        except OSError as error:
            log.warning("cannot reserve disk space: %s", error)

    @property
    def state(self) -> JobState | None:
        return JobState(self._data["state"]) if self._data else None

    def note(self, **more: Any) -> None:
        """Add fields to the next :meth:`write`."""
        self._data |= more

    def write(self, state: JobState, detail: str, **more: Any) -> bool:
        """Write the state and return whether it was written. On a full disk, a non-terminal state may be lost."""
        self._data |= {"state": state.value, "detail": detail, **more}
        deadline = time.monotonic() + (_INSIST_SECONDS if state.terminal else 0.0)
        if state.terminal:
            self._reserve.unlink(missing_ok=True)
        while not self._try():
            if time.monotonic() >= deadline or not self._job.root.is_dir():
                return False
            time.sleep(1.0)
        return True

    def _try(self) -> bool:
        try:
            json_files.write_json(self._job.state_file, self._data)
        except OSError as error:
            log.warning("state.json cannot be written: %s", error)
            return False
        return True
