"""What Airflow knows of a run, as much of it as a command needs to know whether a task still wants its job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlengine.clients.airflow_api import AirflowServer, quoted, run_path
from mlengine.core.job import INSTALLATION_VARIABLE, RUN_UID_KEY


@dataclass(frozen=True)
class AirflowRuns:
    """Read-only. A look-up that finds nothing is ``None``.

    :raises AirflowError: from every method, for anything else that is no answer.
    """

    server: AirflowServer

    def knows(self, dag_id: str) -> bool:
        """Whether there is such a DAG."""
        return self.server.find(f"dags/{quoted(dag_id)}") is not None

    def run(self, dag_id: str, run_id: str) -> dict[str, Any] | None:
        """The DAG run."""
        return self.server.find(run_path(dag_id, run_id))

    def installation(self) -> str | None:
        """The id that this Airflow's tasks write into the jobs they submit; ``None`` if none has submitted any."""
        found = self.server.find(f"variables/{quoted(INSTALLATION_VARIABLE)}")
        return None if found is None else str(found["value"])

    def run_uid(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str | None:
        """What separates the run from a deleted one of the same name; ``None`` if the task has submitted nothing."""
        task = f"{run_path(dag_id, run_id)}/taskInstances/{quoted(task_id)}"
        found = self.server.find(f"{task}/state-store/{quoted(RUN_UID_KEY)}?map_index={map_index}")
        value = None if found is None else found["value"]
        return value if isinstance(value, str) else None

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """All its task instances; none of a run that is gone."""
        found: list[dict[str, Any]] = []
        while True:
            query = f"limit=100&offset={len(found)}&order_by=id"
            page = self.server.find(f"{run_path(dag_id, run_id)}/taskInstances?{query}") or {"total_entries": 0}
            items = page.get("task_instances", [])
            found += items
            if not items or len(found) >= page["total_entries"]:
                return found
