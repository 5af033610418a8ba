"""What Airflow knows of a run, as much of it as a command needs to know whether a task still wants its job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlengine.clients.airflow_api import AirflowServer, quoted, run_path


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
