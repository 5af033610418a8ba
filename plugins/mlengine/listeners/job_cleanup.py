"""No job outlives its DAG run: cancels jobs when Airflow reports the end of a run, or of a wait.

A task that has a job cancels it on every exit that runs our code. Some exits run none: the run is marked between
``submit`` and ``wait``; a wait in ``reschedule`` mode is marked between two polls; a worker is killed on the task's
last try. All of these end the DAG run, and Airflow reports that to listeners: in the scheduler, or in the API server if
a person did it. If the run continues, Airflow reports the end of the wait itself where a person marked it or where its
worker was missing, but not where only its process was killed. :mod:`mlengine.listeners.cleanup_process` then cancels
what still runs.

For a DAG without our operators this costs one query a run.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

from airflow.listeners import hookimpl

from mlengine.core.job import JobKey
from mlengine.listeners.cleanup_process import CancelRequest, start

log = logging.getLogger(__name__)

_SUBMIT, _WAIT = "SubmitTrainingJobOperator", "TrainingJobSensor"


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:  # noqa: ARG001 Airflow's signature
    """The run failed, timed out, or was marked failed."""
    _run_ended(dag_run)


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:  # noqa: ARG001
    """The run succeeded, or was marked so. The job of a run that succeeds without a wait may continue."""
    _run_ended(dag_run, needs_wait=True)


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:  # noqa: ARG001
    """The wait was marked failed, or its worker was missing."""
    _wait_ended(task_instance)


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:  # noqa: ARG001
    """The wait was marked successful."""
    _wait_ended(task_instance)


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:  # noqa: ARG001
    """The wait was marked skipped."""
    _wait_ended(task_instance)


def _wait_ended(task: Any) -> None:
    """Cancel the job of a wait, except in a worker, where the task does it.

    The triggerer cancels the job of a deferred wait, too. Cancelling twice does no harm.
    """
    if type(task).__module__ != "airflow.models.taskinstance" or task.operator != _WAIT:
        return
    if task.state == "up_for_retry":
        return
    try:
        with _session() as session:
            fields = _rendered(session, task.dag_id, task.run_id).get((task.task_id, task.map_index), {})
        request = _request(task.dag_id, task.run_id, task, fields)
        if request is not None:
            log.info("Task %s of run %s has ended: cancelling its job if it runs", task.task_id, task.run_id)
            # The task may be cleared at once: attempts that start later are kept.
            start([replace(request, begun_before=time.time(), why="its wait was ended")])
    except Exception:
        log.exception("Could not cancel the job of %s of run %s; it ends with its run", task.task_id, task.run_id)


def _run_ended(dag_run: Any, *, needs_wait: bool = False) -> None:
    dag_id, run_id = dag_run.dag_id, dag_run.run_id
    try:
        requests = _requests(dag_id, run_id, needs_wait)
        if requests:
            log.info("Run %s of %s has ended: cancelling jobs that it may have left running", run_id, dag_id)
            start(requests)
    except Exception:
        # A listener that raises must not keep Airflow from ending the run.
        log.exception("Could not cancel the jobs of run %s; run `mlengine reap`", run_id)


def _requests(dag_id: str, run_id: str, needs_wait: bool) -> list[CancelRequest]:
    """One for each submission of the run, unless all of its waits have succeeded."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from sqlalchemy import func, select

    with _session() as session:
        ours = (
            TaskInstance.dag_id == dag_id,
            TaskInstance.run_id == run_id,
            TaskInstance.operator.in_([_SUBMIT, _WAIT]),
        )
        columns = (
            TaskInstance.task_id,
            TaskInstance.map_index,
            TaskInstance.max_tries,
            TaskInstance.operator,
            TaskInstance.state,
            TaskInstance.start_date,
        )
        tasks = session.execute(select(*columns).where(*ours)).all()
        submits = [task for task in tasks if task.operator == _SUBMIT and task.start_date is not None]
        waits = [task for task in tasks if task.operator == _WAIT]
        if not (submits or any(task.start_date for task in waits)) or (needs_wait and not waits):
            return []
        if waits and all(task.state == "success" for task in waits):
            # A task that was marked successful has no result.
            results = (XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key == "return_value")
            those = XComModel.task_id.in_([task.task_id for task in waits])
            if session.scalar(select(func.count()).select_from(XComModel).where(*results, those)) == len(waits):
                return []
        rendered = _rendered(session, dag_id, run_id)
    # A run that only waits has its job from elsewhere, and cancels it as its wait would.
    requests = (
        _request(dag_id, run_id, task, rendered.get((task.task_id, task.map_index), {})) for task in submits or waits
    )
    return [request for request in requests if request is not None]


def _session() -> Any:
    """A new session. The thread's session is the scheduler's, in a transaction that only the scheduler may commit:
    committing it, as ``create_session()`` does at its end, raises and ends the scheduler.
    """
    from airflow.utils.session import create_session

    return create_session(scoped=False)


def _rendered(session: Any, dag_id: str, run_id: str) -> dict[tuple[str, int], dict[str, Any]]:
    """The rendered fields of a run's tasks, by task id and map index."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Rendered
    from sqlalchemy import select

    fields = (Rendered.task_id, Rendered.map_index, Rendered.rendered_fields)
    found = session.execute(select(*fields).where(Rendered.dag_id == dag_id, Rendered.run_id == run_id)).all()
    return {(row.task_id, row.map_index): row.rendered_fields for row in found}


def _request(dag_id: str, run_id: str, task: Any, fields: dict[str, Any]) -> CancelRequest | None:
    """The request for one task, from its rendered fields."""
    options = fields.get("backend_options")
    where: dict[str, Any] = {
        "gcp_conn_id": fields.get("gcp_conn_id") or None,
        "backend_options": options if isinstance(options, dict) else None,
    }
    if task.operator == _SUBMIT:
        key = JobKey(dag_id, run_id, task.task_id, task.map_index, int(task.max_tries))
        return CancelRequest(key=key.digest, backend=fields.get("backend") or None, **where)
    job = fields.get("job")
    if not isinstance(job, dict) or "job_dir" not in job:
        return None
    return CancelRequest(job_dir=job["job_dir"], backend=job.get("backend"), **where)
