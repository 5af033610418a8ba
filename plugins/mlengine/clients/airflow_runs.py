"""Reads DAG runs and task instances from Airflow's REST API, to find out whether a task still needs its job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlengine.clients.airflow_api import AirflowServer, quoted, run_path
from mlengine.core.job import ACCESS_KEY, INSTALLATION_VARIABLE, RUN_UID_KEY


@dataclass(frozen=True)
class AirflowRuns:
    """Read-only access to Airflow's runs. A method returns ``None`` if Airflow does not have the resource.

    :raises AirflowError: from every method, if the server cannot be reached or rejects the request.
    """

    server: AirflowServer

    def knows(self, dag_id: str) -> bool:
        """Whether the DAG exists."""
        return self.server.find(f"dags/{quoted(dag_id)}") is not None

    def run(self, dag_id: str, run_id: str) -> dict[str, Any] | None:
        """The DAG run."""
        return self.server.find(run_path(dag_id, run_id))

    def installation(self) -> str | None:
        """The id that tasks of this Airflow write into their jobs; ``None`` before the first job."""
        found = self.server.find(f"variables/{quoted(INSTALLATION_VARIABLE)}")
        return None if found is None else str(found["value"])

    def run_uid(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str | None:
        """The id that distinguishes the run from a deleted run with the same name; ``None`` before the first job."""
        value = self._kept(dag_id, run_id, task_id, map_index, RUN_UID_KEY)
        return value if isinstance(value, str) else None

    def has_job(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> bool:
        """Whether the task has begun to submit a job or to wait for one."""
        return self._kept(dag_id, run_id, task_id, map_index, ACCESS_KEY) is not None

    def _kept(self, dag_id: str, run_id: str, task_id: str, map_index: int, key: str) -> Any:
        """A value that a task keeps in its state store."""
        task = f"{run_path(dag_id, run_id)}/taskInstances/{quoted(task_id)}"
        found = self.server.find(f"{task}/state-store/{quoted(key)}?map_index={map_index}")
        return None if found is None else found["value"]

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """All task instances of a run; an empty list if the run does not exist."""
        found: list[dict[str, Any]] = []
        while True:
            query = f"limit=100&offset={len(found)}&order_by=id"
            page = self.server.find(f"{run_path(dag_id, run_id)}/taskInstances?{query}") or {"total_entries": 0}
            items = page.get("task_instances", [])
            found += items
            if not items or len(found) >= page["total_entries"]:
                return found
