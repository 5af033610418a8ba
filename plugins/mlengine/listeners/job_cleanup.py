"""Cancels jobs when Airflow reports the end of a run or of a wait, so that no job outlives its DAG run.

A task that has a job cancels it on every exit that runs our code. Some exits do not run our code: the run is marked
between ``submit`` and ``wait``; a wait in ``reschedule`` mode is marked between two polls; a worker is killed on the
task's last try. All of these end the DAG run, and Airflow reports that to listeners: in the scheduler, or in the API
server if a person ended the run. If the run continues, Airflow reports the end of the wait itself if a person marked it
or its worker was missing, but not if only its process was killed. :mod:`mlengine.listeners.cleanup_process` then
cancels the jobs that still run.

For a DAG without our operators, this takes one query a run.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from airflow.listeners import hookimpl

from mlengine.core.job import ACCESS_KEY, RUN_UID_KEY, Decision, JobKey
from mlengine.listeners.cleanup_process import CancelRequest, resume, start
from mlengine.listeners.starting import is_starting

log = logging.getLogger(__name__)

_SUBMIT, _WAIT = "SubmitTrainingJobOperator", "TrainingJobSensor"


@hookimpl
def on_starting(component: Any) -> None:
    """Called when one of Airflow's components starts. The scheduler handles the requests from before it was stopped."""
    if is_starting(component, "scheduler"):
        try:
            resume()
        except Exception:
            log.exception("Could not search for jobs to cancel; run `mlengine jobs reap`")


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:  # noqa: ARG001 Airflow's signature
    """Called when a run failed, timed out, or was marked failed."""
    _run_ended(dag_run)


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:  # noqa: ARG001
    """Called when a run succeeded or was marked successful. If the run has no wait, its job may continue."""
    _run_ended(dag_run, needs_wait=True)


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:  # noqa: ARG001
    """Called when a task failed. A wait may have been marked failed, or its worker was missing."""
    _wait_ended(task_instance)


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:  # noqa: ARG001
    """Called when a task succeeded. A wait may have been marked successful."""
    _wait_ended(task_instance)


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:  # noqa: ARG001
    """Called when a task was skipped. A wait may have been marked skipped."""
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
            fields = _fields(session, task.dag_id, task.run_id).get((task.task_id, task.map_index), {})
        request = _wait_request(fields)
        if request is not None:
            log.info(
                "Task %s of run %s has ended: cancelling its job if it is still running", task.task_id, task.run_id
            )
            # The task may be cleared immediately, so attempts that start later are not cancelled.
            request = replace(request, begun_before=time.time(), why="its wait task has ended")
            start([request], _session_of(task))
    except Exception:
        log.exception(
            "Could not cancel the job of task %s of run %s; it will be cancelled when the run ends",
            task.task_id,
            task.run_id,
        )


def _run_ended(dag_run: Any, *, needs_wait: bool = False) -> None:
    dag_id, run_id = dag_run.dag_id, dag_run.run_id
    try:
        requests = _requests(dag_id, run_id, needs_wait)
        if requests:
            log.info("Run %s of %s has ended: cancelling jobs that it may have left running", run_id, dag_id)
            start(requests, _session_of(dag_run))
    except Exception:
        # A listener that raises must not keep Airflow from ending the run.
        log.exception("Could not cancel the jobs of run %s; run `mlengine jobs reap`", run_id)


def _requests(dag_id: str, run_id: str, needs_wait: bool) -> list[CancelRequest]:
    """One request for each submission of the run; none if all waits of the run have succeeded."""
    from airflow.models.task_state_store import TaskStateStoreModel as Stored
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from sqlalchemy import and_, exists, func, or_, select

    with _session() as session:
        # Airflow knows a task of a subclass by the name of the subclass. It has kept how it accesses its job.
        has_access = and_(
            Stored.dag_id == TaskInstance.dag_id,
            Stored.run_id == TaskInstance.run_id,
            Stored.task_id == TaskInstance.task_id,
            Stored.map_index == TaskInstance.map_index,
            Stored.key == ACCESS_KEY,
        )
        ours = (
            TaskInstance.dag_id == dag_id,
            TaskInstance.run_id == run_id,
            or_(TaskInstance.operator.in_([_SUBMIT, _WAIT]), exists().where(has_access)),
        )
        columns = (
            TaskInstance.task_id,
            TaskInstance.map_index,
            TaskInstance.max_tries,
            TaskInstance.operator,
            TaskInstance.state,
            TaskInstance.start_date,
            TaskInstance.try_number,
        )
        tasks = session.execute(select(*columns).where(*ours)).all()
        # A task that never ran has a start date too if it was skipped or an earlier task failed, but no tries.
        begun = [task for task in tasks if task.start_date is not None and task.try_number > 0]
        uids = _run_uids(session, dag_id, run_id) if begun else {}
        waits = [task for task in tasks if not _is_submit(task, uids)]
        submits = [task for task in begun if _is_submit(task, uids)]
        if not begun or (needs_wait and not waits):
            return []
        if waits and all(task.state == "success" for task in waits):
            # A task that was marked successful has no result.
            results = (XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key == "return_value")
            those = XComModel.task_id.in_([task.task_id for task in waits])
            if session.scalar(select(func.count()).select_from(XComModel).where(*results, those)) == len(waits):
                return []
        fields = _fields(session, dag_id, run_id)
        handles = _results(session, dag_id, run_id, [task.task_id for task in submits])
    requests: list[CancelRequest | None] = []
    for task in submits:
        instance = (task.task_id, task.map_index)
        key = JobKey(dag_id, run_id, *instance, int(task.max_tries), uids.get(instance, ""))
        requests += _submit_requests(key, fields.get(instance, {}), handles.get(instance))
    if not submits:
        # A run without a submission got its job from elsewhere. The job is cancelled, as its wait would do.
        requests = [_wait_request(fields.get((task.task_id, task.map_index), {})) for task in waits]
    return [request for request in requests if request is not None]


def _is_submit(task: Any, uids: Mapping[tuple[str, int], str]) -> bool:
    """Whether a task submits a job, and does not wait for one. A submitting task has kept the UID of its run."""
    return task.operator == _SUBMIT or (task.operator != _WAIT and (task.task_id, task.map_index) in uids)


def _session() -> Any:
    """A new database session.

    The thread's session is the scheduler's, in a transaction that only the scheduler may commit: committing it, as
    ``create_session()`` does at its end, raises an error and ends the scheduler.
    """
    from airflow.utils.session import create_session

    return create_session(scoped=False)


def _session_of(row: Any) -> Any:
    """The session in whose transaction Airflow ends this run or task; ``None`` if it is in no session."""
    from sqlalchemy.orm import object_session

    return object_session(row)


def _fields(session: Any, dag_id: str, run_id: str) -> dict[tuple[str, int], dict[str, Any]]:
    """The fields by which the run's tasks access their jobs, by task id and map index.

    These are the rendered fields, or else those that the task keeps in the state store. Airflow deletes the rendered
    fields of all but the newest runs of a DAG, even while a backfill runs an old one.
    """
    kept = _kept(session, dag_id, run_id, ACCESS_KEY)
    return {
        **{task: value for task, value in kept.items() if isinstance(value, dict) and "gcp_conn_id" in value},
        **_rendered(session, dag_id, run_id),
    }


def _rendered(session: Any, dag_id: str, run_id: str) -> dict[tuple[str, int], dict[str, Any]]:
    """The rendered fields of a run's tasks, by task id and map index."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Rendered
    from sqlalchemy import select

    fields = (Rendered.task_id, Rendered.map_index, Rendered.rendered_fields)
    found = session.execute(select(*fields).where(Rendered.dag_id == dag_id, Rendered.run_id == run_id)).all()
    return {(row.task_id, row.map_index): row.rendered_fields for row in found}


def _run_uids(session: Any, dag_id: str, run_id: str) -> dict[tuple[str, int], str]:
    """The run UIDs that the run's submitting tasks keep in the state store, by task id and map index.

    There is none for a task that has not begun to submit, or where ``[state_store] clear_on_success`` has removed it.
    """
    kept = _kept(session, dag_id, run_id, RUN_UID_KEY)
    return {task: value for task, value in kept.items() if isinstance(value, str)}


def _kept(session: Any, dag_id: str, run_id: str, key: str) -> dict[tuple[str, int], Any]:
    """A value that the run's tasks keep in the state store, by task id and map index."""
    from airflow.models.task_state_store import TaskStateStoreModel as Stored
    from sqlalchemy import select

    where = (Stored.dag_id == dag_id, Stored.run_id == run_id, Stored.key == key)
    found = session.execute(select(Stored.task_id, Stored.map_index, Stored.value).where(*where)).all()
    return {(row.task_id, row.map_index): json.loads(row.value) for row in found}


def _results(session: Any, dag_id: str, run_id: str, task_ids: Sequence[str]) -> dict[tuple[str, int], Any]:
    """The results of these tasks of the run, by task id and map index."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    columns = (XComModel.task_id, XComModel.map_index, XComModel.value)
    where = (XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key == "return_value")
    found = session.execute(select(*columns).where(*where, XComModel.task_id.in_(task_ids))).all()
    return {(row.task_id, row.map_index): XComModel.deserialize_value(row) for row in found}


def _submit_requests(key: JobKey, fields: dict[str, Any], handle: Any) -> list[CancelRequest]:
    """The requests for a submitting task: by its key, and by the job dir in its result, or else the prepared one.

    The job in the job dir has another key if the task was cleared and has not submitted again. Without a run UID, the
    key is not known.
    """
    access, owner = _access(fields), {"dag_id": key.dag_id, "run_id": key.run_id}
    backend = fields.get("backend") or None
    if isinstance(handle, dict) and "job_dir" in handle and handle.get("decision") != Decision.REUSED:
        of_job = handle.get("backend") or backend
        by_dir = CancelRequest(job_dir=handle["job_dir"], backend=of_job, owner=owner, **access)
        if not key.run_uid:
            return [by_dir]
        if of_job == (backend or of_job):
            return [replace(by_dir, key=key.digest)]
        return [CancelRequest(key=key.digest, backend=backend, **access), by_dir]
    prepared = fields.get("job")
    job_dir = prepared.get("job_dir", "") if isinstance(prepared, dict) else ""
    return [CancelRequest(key=key.digest, job_dir=job_dir, backend=backend, owner=owner, **access)]


def _wait_request(fields: dict[str, Any]) -> CancelRequest | None:
    """The request by the job dir of the job that a task waits for; ``None`` if the task does not know its job yet."""
    job = fields.get("job")
    if not isinstance(job, dict) or "job_dir" not in job:
        return None
    return CancelRequest(job_dir=job["job_dir"], backend=job.get("backend"), **_access(fields))


def _access(fields: dict[str, Any]) -> dict[str, Any]:
    """The arguments to access the bucket and the backend, from a task's rendered fields."""
    options = fields.get("backend_options")
    return {
        "gcp_conn_id": fields.get("gcp_conn_id", ""),
        **{name: fields.get(name) or None for name in ("impersonation_chain", "project_id", "region")},
        "backend_options": options if isinstance(options, dict) else None,
    }
