"""The effects of faults on jobs and lists, after a method has been executed."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from mlengine.backends import EndsReplicas
from mlengine.core.times import seconds
from mlengine.emulator.engine import Engine
from mlengine.emulator.faults import Fault
from mlengine.emulator.records import MLENGINE, VERTEX, Record
from mlengine.emulator.vertex_api import job_name

log = logging.getLogger(__name__)

PREEMPT_TIMEOUT = 600.0


class Effects:
    """Applies faults to the response of a method."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def apply(self, fault: Fault, response: dict[str, Any]) -> dict[str, Any]:
        """Apply one fault, and return the response to send."""
        if fault.action == "lag":
            return {name: _older_than(value, fault.seconds) for name, value in response.items()}
        if fault.action == "preempt":
            record = self._record(response)
            if record is not None:
                threading.Thread(target=self._preempt, args=(record, fault.replica), daemon=True).start()
        return response

    def _record(self, response: dict[str, Any]) -> Record | None:
        # The response for a training pipeline contains the name of its job.
        name = response.get("trainingTaskMetadata", {}).get("backingCustomJob") or response.get("name")
        for record in self._engine.store.all():
            if (record.api == VERTEX and name == job_name(record)) or (
                record.api == MLENGINE and response.get("jobId") == record.id
            ):
                return record
        return None

    def _preempt(self, record: Record, replica: str) -> None:
        """Wait until the replica runs, then send it SIGTERM, as a preempted host does."""
        backend = self._engine.backend
        if not isinstance(backend, EndsReplicas):
            log.warning("job %s: cannot preempt %s: this backend does not support it", record.id, replica)
            return
        deadline = time.monotonic() + PREEMPT_TIMEOUT
        while time.monotonic() < deadline:
            current = self._engine.refresh([record])[0]
            if current.state.terminal:
                log.warning("job %s ended before %s could be preempted", record.id, replica)
                return
            if current.handle is not None and backend.end_replica(current.handle, replica):
                log.info("job %s: preempted %s", record.id, replica)
                return
            time.sleep(0.2)
        log.warning("job %s: %s did not run within %.0f s and was not preempted", record.id, replica, PREEMPT_TIMEOUT)


def _older_than(value: Any, age: float) -> Any:
    if not isinstance(value, list):
        return value
    newest = time.time() - age
    return [item for item in value if _created(item) <= newest]


def _created(item: Any) -> float:
    created = item.get("createTime") or item.get("timestamp")
    return seconds(created) if created else 0.0
