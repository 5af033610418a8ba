"""A client for the part of Airflow's REST API that tests and ``make run`` use.

Its methods correspond to a person's actions in the UI: log in, trigger, watch, read logs. One object is one login.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlengine.clients.airflow_api import AirflowServer, quoted, run_path
from mlengine.core.errors import AirflowError, StackError

_FINAL = frozenset({"success", "failed"})
_PAUSES = (0.5, 1.0, 2.0)  # seconds before a request is repeated


@dataclass(frozen=True)
class DagRun:
    """The state of a DAG run at one moment."""

    dag_id: str
    run_id: str
    state: str
    partition_key: str | None
    conf: Mapping[str, Any]

    @property
    def done(self) -> bool:
        return self.state in _FINAL


@dataclass(frozen=True)
class TaskRun:
    """The state of a task instance at one moment: ``None`` before it is scheduled. ``duration`` is in seconds."""

    task_id: str
    state: str | None
    try_number: int
    duration: float | None
    map_index: int = -1


class AirflowApi:
    """A session with the API server at ``url``.

    :raises AirflowError: from every method, if the server cannot be reached or refuses the request; with its message.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        # Proxies in the environment are not used: the server is on loopback.
        self._server = AirflowServer(url, user=user, password=password, direct=True)
        self.url = self._server.url

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a request to ``/api/v2/<path>``, and return the JSON of the response."""
        return self._server.call(method, path, body)

    def health(self) -> dict[str, Any]:
        """The server's report on the health of its components; it needs no login."""
        return self._server.health()

    def prepare_execution_api(self) -> None:
        """Make the server build the routes that tasks use, so that the first tasks of a run do not wait for them."""
        self._server.prepare_execution_api()

    def import_errors(self) -> dict[str, str]:
        """The import error of each DAG file that has one."""
        found = self.call("GET", "importErrors")["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in found}

    def wait_for_dag(self, dag_id: str, seconds: float = 90.0) -> dict[str, Any]:
        """Wait until the DAG processor has read the DAG.

        :raises StackError: the DAG was not read within ``seconds``; the message has the import errors.
        """
        deadline = time.monotonic() + seconds
        while True:
            answer = self._server.find(f"dags/{quoted(dag_id)}")
            if answer is not None:
                return answer
            if time.monotonic() > deadline:
                reasons = "\n".join(f"{file}:\n{trace}" for file, trace in self.import_errors().items())
                raise StackError(f"Airflow has no DAG {dag_id!r} after {seconds:.0f} s", hint=reasons)
            time.sleep(0.3)

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        *,
        partition_key: str | None = None,
        run_id: str | None = None,
    ) -> DagRun:
        """Start a run as the form in the UI does. Values that its parameters do not allow are refused with the reason.

        The run gets no note: mlengine writes none on a run that has one already.
        """
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        given = {"partition_key": partition_key, "dag_run_id": run_id}
        body |= {name: value for name, value in given.items() if value is not None}
        return _dag_run(self.call("POST", f"dags/{quoted(dag_id)}/dagRuns", body))

    def run(self, dag_id: str, run_id: str) -> DagRun:
        return _dag_run(self.call("GET", run_path(dag_id, run_id)))

    def runs(self, dag_id: str) -> list[DagRun]:
        """The runs of a DAG, the newest first, at most 100."""
        answer = self.call("GET", f"dags/{quoted(dag_id)}/dagRuns?limit=100&order_by=-run_after")
        return [_dag_run(item) for item in answer["dag_runs"]]

    def live_runs(self) -> list[DagRun]:
        """The runs of all DAGs that have begun and not ended, at most 100."""
        return [_dag_run(item) for item in self.call("GET", "dags/~/dagRuns?state=running&limit=100")["dag_runs"]]

    def wait(
        self,
        run: DagRun,
        seconds: float,
        on_poll: Callable[[DagRun, list[TaskRun]], None] = lambda run, tasks: None,  # noqa: ARG005
        *,
        check: Callable[[], None] = lambda: None,
        every: float | Callable[[list[TaskRun]], float] = 1.0,
    ) -> DagRun:
        """Wait until the run has ended. An API server that does not answer for a while may be restarting.

        :param on_poll: called with the run and the tasks after each successful poll.
        :param check: called before each poll; it raises an error if the wait would be in vain.
        :param every: the seconds between two polls, or a function that returns them for the last poll's tasks.
        :raises StackError: the run has not ended within ``seconds``; the message has the state of each task, or the
            server's last error.
        """
        deadline = time.monotonic() + seconds
        tasks: list[TaskRun] = []
        while True:
            check()
            try:
                now, tasks = self.run(run.dag_id, run.run_id), self.tasks(run.dag_id, run.run_id)
                on_poll(now, tasks)
                if now.done:
                    return now
                seen = f"{now.state}: { {task.task_id: task.state for task in tasks} }"
            except AirflowError as error:
                if error.status is not None and error.status < 500:
                    raise
                seen = error.message
            if time.monotonic() > deadline:
                raise StackError(f"run {run.run_id} of {run.dag_id} has not ended after {seconds:.0f} s; {seen}")
            time.sleep(every(tasks) if callable(every) else every)

    def tasks(self, dag_id: str, run_id: str) -> list[TaskRun]:
        """All task instances of a run, in order of their start."""
        found = self.call("GET", f"{run_path(dag_id, run_id)}/taskInstances?limit=200")["task_instances"]
        found.sort(key=lambda item: (item["start_date"] is None, item["start_date"] or "", item["task_id"]))
        names = ("task_id", "state", "try_number", "duration", "map_index")
        return [TaskRun(**{name: item[name] for name in names}) for item in found]

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> list[str]:
        """The lines that the UI shows for one try of a task. An exception is one line, without its frames."""
        path = f"{run_path(dag_id, run_id)}/taskInstances/{quoted(task_id)}/logs/{try_number}"
        content = self.call("GET", f"{path}?full_content=true&map_index={map_index}")["content"]
        return [line for item in content for line in _log_lines(item)]

    def xcoms(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """The XComs that a task has pushed, by key."""
        path = f"{run_path(dag_id, run_id)}/taskInstances/{quoted(task_id)}/xcomEntries"
        listed = self.call("GET", f"{path}?map_index={map_index}&limit=100")["xcom_entries"]
        query = f"?map_index={map_index}&stringify=false"
        return {item["key"]: self.call("GET", f"{path}/{quoted(item['key'])}{query}")["value"] for item in listed}

    def links(self, dag_id: str, run_id: str, task_id: str) -> dict[str, str | None]:
        """The addresses of a task's extra links, by name."""
        answer = self.call("GET", f"{run_path(dag_id, run_id)}/taskInstances/{quoted(task_id)}/links")
        links: dict[str, str | None] = answer["extra_links"]
        return links

    def set_paused(self, dag_id: str, paused: bool) -> None:
        self._set("PATCH", f"dags/{quoted(dag_id)}", {"is_paused": paused})

    def set_run_state(self, run: DagRun, state: str) -> None:
        """Set the state of a run, as "Mark as failed" and "Mark as success" do."""
        self._set("PATCH", run_path(run.dag_id, run.run_id), {"state": state})

    def clear(self, run: DagRun, *task_ids: str) -> None:
        """Clear tasks of a run and the tasks downstream of them, so that they run again."""
        body = {"dry_run": False, "dag_run_id": run.run_id, "task_ids": list(task_ids), "only_failed": False}
        self._set("POST", f"dags/{quoted(run.dag_id)}/clearTaskInstances", {**body, "include_downstream": True})

    def backfill(self, dag_id: str, first: str, last: str, *, at_once: int = 2, again: str = "none") -> int:
        """Start a backfill over the dates ``first`` to ``last``, and return its id.

        :param again: the existing runs that are run again: ``none``, ``failed`` or ``completed``.
        """
        body = {"dag_id": dag_id, "from_date": first, "to_date": last, "max_active_runs": at_once}
        return int(self.call("POST", "backfills", {**body, "reprocess_behavior": again})["id"])

    def _set(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        """Send a request that may be repeated. The server answers 500 while its SQLite database is locked."""
        for pause in _PAUSES:
            try:
                self.call(method, path, body)
            except AirflowError as error:
                if error.status not in {500, 503}:
                    raise
                time.sleep(pause)
            else:
                return
        self.call(method, path, body)


def _log_lines(item: str | Mapping[str, Any]) -> list[str]:
    if isinstance(item, str):
        return [item]
    causes = item.get("error_detail") or []
    return [str(item.get("event", "")), *(f"{cause.get('exc_type')}: {cause.get('exc_value')}" for cause in causes)]


def _dag_run(item: Mapping[str, Any]) -> DagRun:
    return DagRun(item["dag_id"], item["dag_run_id"], item["state"], item.get("partition_key"), item.get("conf") or {})
