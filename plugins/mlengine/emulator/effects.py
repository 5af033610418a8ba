"""What faults do to jobs and lists, after the method was done."""

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

log = logging.getLogger(__name__)

PREEMPT_PATIENCE = 600.0


class Effects:
    """Applies a fault to what a method answered."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def apply(self, fault: Fault, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer as it is to be sent."""
        if fault.action == "lag":
            return {name: _old(value, fault.seconds) for name, value in answer.items()}
        if fault.action == "preempt":
            record = self._record(answer)
            if record is not None:
                threading.Thread(target=self._preempt, args=(record, fault.replica), daemon=True).start()
        return answer

    def _record(self, answer: dict[str, Any]) -> Record | None:
        for record in self._engine.store.all():
            name = f"projects/{record.project}/locations/{record.region}/customJobs/{record.id}"
            if (record.face == VERTEX and answer.get("name") == name) or (
                record.face == MLENGINE and answer.get("jobId") == record.id
            ):
                return record
        return None

    def _preempt(self, record: Record, replica: str) -> None:
        """Wait until the replica runs, then tell it to stop, as its host would."""
        backend = self._engine.backend
        if not isinstance(backend, EndsReplicas):
            log.warning("job %s: this backend's replicas cannot be preempted", record.id)
            return
        until = time.monotonic() + PREEMPT_PATIENCE
        while time.monotonic() < until:
            current = self._engine.refresh([record])[0]
            if current.state.terminal:
                return
            if current.handle is not None and backend.end_replica(current.handle, replica):
                log.info("job %s: %s was preempted", record.id, replica)
                return
            time.sleep(0.2)


def _old(value: Any, age: float) -> Any:
    if not isinstance(value, list):
        return value
    newest = time.time() - age
    return [item for item in value if seconds(item.get("createTime", "1970-01-01T00:00:00Z")) <= newest]
