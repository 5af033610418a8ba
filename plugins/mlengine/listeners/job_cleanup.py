"""No job outlives its DAG run: what Airflow tells a plugin when a run, or a wait, is over.

A task that holds a job ends it on every way out that runs any code of ours. Some run none: the run is marked while the
job is submitted and not yet waited for; a wait in ``reschedule`` mode is marked between two looks; a worker is killed
outright on the task's last try. All of these end in a run that is over, and that is told to plugins: in the scheduler,
or in the API server if a person did it. Where the run goes on, they are told of the wait itself, if somebody marked it
or its worker was missed; not if its process alone was killed. What may still run is then ended by a process of its own
(:mod:`mlengine.listeners.cleanup_process`).

Costs a DAG without our operators one query a run.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from airflow.listeners import hookimpl

from mlengine.core.job import RUN_UID_KEY, JobKey
from mlengine.listeners.cleanup_process import Order, start

log = logging.getLogger(__name__)

_SUBMIT, _WAIT = "SubmitTrainingJobOperator", "TrainingJobSensor"


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:  # noqa: ARG001 Airflow's signature
    """It failed by itself, timed out, or was marked."""
    _over(dag_run)


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:  # noqa: ARG001
    """Likewise: it may have been marked. But a run that succeeds without a wait of its own has left its job to run."""
    _over(dag_run, needs_wait=True)


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:  # noqa: ARG001
    """It was marked, or its worker was missed."""
    _wait_over(task_instance)


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:  # noqa: ARG001
    """It was marked."""
    _wait_over(task_instance)


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:  # noqa: ARG001
    """Likewise."""
    _wait_over(task_instance)


def _wait_over(task: Any) -> None:
    """End the job of a wait, unless this is a worker, where the task does it.

    Of a deferred one the triggerer ends it too, if it had taken it up already; twice does no harm.
    """
    if type(task).__module__ != "airflow.models.taskinstance" or task.operator != _WAIT:
        return
    if task.state == "up_for_retry":
        return
    try:
        with _session() as session:
            fields = _rendered(session, task.dag_id, task.run_id).get((task.task_id, task.map_index), {})
        order = _wait_order(fields)
        if order is not None:
            log.info("%s of run %s is over: ending its job, if it runs", task.task_id, task.run_id)
            # What begins later was not meant: somebody may clear the task at once.
            start([replace(order, begun_before=time.time(), why="its wait was ended")])
    except Exception:
        log.exception("the job of %s of run %s could not be ended; it ends with its run", task.task_id, task.run_id)


def _over(dag_run: Any, *, needs_wait: bool = False) -> None:
    dag_id, run_id = dag_run.dag_id, dag_run.run_id
    try:
        orders = _orders(dag_id, run_id, needs_wait)
        if orders:
            log.info("run %s of %s is over: ending what it may have left running", run_id, dag_id)
            start(orders)
    except Exception:
        # A listener that raises must not keep Airflow from ending the run.
        log.exception("what run %s left running could not be ended; `mlengine reap` finds it", run_id)


def _orders(dag_id: str, run_id: str, needs_wait: bool) -> list[Order]:
    """One for each submission of the run, unless all of its waits came to their own ends."""
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
            # A task that is marked has no result.
            results = (XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key == "return_value")
            those = XComModel.task_id.in_([task.task_id for task in waits])
            if session.scalar(select(func.count()).select_from(XComModel).where(*results, those)) == len(waits):
                return []
        rendered = _rendered(session, dag_id, run_id)
        uids = _run_uids(session, dag_id, run_id)
        handles = _results(session, dag_id, run_id, [task.task_id for task in submits])
    orders: list[Order | None] = []
    for task in submits:
        place = (task.task_id, task.map_index)
        key = JobKey(dag_id, run_id, *place, int(task.max_tries), uids.get(place, ""))
        orders.append(_submit_order(key, rendered.get(place, {}), handles.get(place)))
    if not submits:
        # A run that only waits was given its job by somebody else, and ends it all the same, as its wait would.
        orders = [_wait_order(rendered.get((task.task_id, task.map_index), {})) for task in waits]
    return [order for order in orders if order is not None]


def _session() -> Any:
    """A session of its own: the thread's is the scheduler's, in the middle of a transaction that only it may commit. To
    commit that one, as the usual session does at its end, is refused, and ends the scheduler.
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


def _run_uids(session: Any, dag_id: str, run_id: str) -> dict[tuple[str, int], str]:
    """What the run's submitting tasks keep in the state store, by task id and map index.

    None of a task that has not begun to submit, or where ``[state_store] clear_on_success`` has removed it.
    """
    from airflow.models.task_state_store import TaskStateStoreModel as Stored
    from sqlalchemy import select

    where = (Stored.dag_id == dag_id, Stored.run_id == run_id, Stored.key == RUN_UID_KEY)
    found = session.execute(select(Stored.task_id, Stored.map_index, Stored.value).where(*where)).all()
    values = {(row.task_id, row.map_index): json.loads(row.value) for row in found}
    return {place: value for place, value in values.items() if isinstance(value, str)}


def _results(session: Any, dag_id: str, run_id: str, task_ids: Sequence[str]) -> dict[tuple[str, int], Any]:
    """What these tasks of the run returned, by task id and map index."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    columns = (XComModel.task_id, XComModel.map_index, XComModel.value)
    where = (XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key == "return_value")
    found = session.execute(select(*columns).where(*where, XComModel.task_id.in_(task_ids))).all()
    return {(row.task_id, row.map_index): XComModel.deserialize_value(row) for row in found}


def _submit_order(key: JobKey, fields: dict[str, Any], handle: Any) -> Order:
    """By the key of the task; without a run's uid, by the dir of the job that the task returned."""
    where = _where(fields)
    backend = fields.get("backend") or None
    if not key.run_uid and isinstance(handle, dict) and "job_dir" in handle:
        return Order(job_dir=handle["job_dir"], backend=handle.get("backend") or backend, **where)
    return Order(key=key.digest, backend=backend, **where)


def _wait_order(fields: dict[str, Any]) -> Order | None:
    job = fields.get("job")
    if not isinstance(job, dict) or "job_dir" not in job:
        return None
    return Order(job_dir=job["job_dir"], backend=job.get("backend"), **_where(fields))


def _where(fields: dict[str, Any]) -> dict[str, Any]:
    """Where a task submitted to, or what it waits for, is among its rendered fields."""
    options = fields.get("backend_options")
    return {
        "gcp_conn_id": fields.get("gcp_conn_id", ""),
        **{name: fields.get(name) or None for name in ("impersonation_chain", "project_id", "region")},
        "backend_options": options if isinstance(options, dict) else None,
    }
