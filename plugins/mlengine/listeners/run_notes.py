"""Writes the note on a DAG run, which Airflow shows in its list of runs: the dataset version and the result.

A task cannot write a note, as Airflow's API for tasks has no call for it. Listeners for the end of a run can: in the
scheduler, or in the API server if a person ended the run. The note is written in their transaction, together with the
run's state. It never replaces a person's note; a note of ours from before the run was cleared is replaced.

For a DAG without our operators, this takes one query a run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from airflow.listeners import hookimpl

from mlengine.core.metrics import format_value

log = logging.getLogger(__name__)

_DATASET, _VALIDATE, _PUBLISH = "ResolveDatasetOperator", "ValidateModelOperator", "PublishModelOperator"
_SUBMIT = "SubmitTrainingJobOperator"
_AUTHOR = "mlengine"
_LONGEST = 900  # characters; Airflow accepts 1,000


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:  # noqa: ARG001 Airflow's signature
    _note(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:  # noqa: ARG001
    _note(dag_run)


def note_of_groups(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The note about a run, as :func:`note_of` returns it, with a line for each task group if several have results.

    The instances of a mapped group are groups: ``tenant.retrain[0]``.

    :param results: by task group, then as for :func:`note_of`. Results of tasks without a group belong to all groups.
    """
    shared = results.get("", {})
    ordered = sorted(results.items(), key=lambda pair: pair[0].partition("[")[0])  # instances keep their order
    groups = {name: {**shared, **own} for name, own in ordered if name} or {"": dict(shared)}
    notes = {name: note for name, own in groups.items() if (note := note_of(own))}
    if len(notes) == 1:
        return next(iter(notes.values()))
    return "\n".join(f"{name}: {note}" for name, note in notes.items())[:_LONGEST]


def note_of(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One line about a run; empty if none of its tasks has a result.

    :param results: the tasks' results, by the names of their operators.
    """
    dataset, submit = results.get(_DATASET, {}), results.get(_SUBMIT, {})
    validate, publish = results.get(_VALIDATE, {}), results.get(_PUBLISH, {})
    parts = []
    if dataset.get("version"):
        parts.append(f"{dataset.get('dataset')} {dataset['version']}")
    if submit.get("decision") == "reused":
        parts.append("reused an earlier model")
    if validate.get("verdict"):
        metric, value = validate.get("metric"), validate.get("metric_value")
        shown = f" ({metric} {format_value(value)})" if metric and isinstance(value, int | float) else ""
        parts.append(str(validate["verdict"]).replace("_", " ") + shown)
    if publish.get("published"):
        parts.append(f"champion no. {publish.get('serial')}")
    elif publish.get("reason"):
        parts.append(f"not published: {publish['reason']}")
    elif validate.get("verdict") in {"rejected", "not_compared"}:
        parts.append(" ".join(str(reason) for reason in validate.get("reasons") or ()))
    return " · ".join(parts)[:_LONGEST]


def _note(dag_run: Any) -> None:
    try:
        text = note_of_groups(_results(dag_run.dag_id, dag_run.run_id))
        if text:
            _write(dag_run, text)
    except Exception:
        # A listener that raises must not keep Airflow from ending the run.
        log.exception("Could not add a note to run %s of %s", dag_run.run_id, dag_run.dag_id)


def _results(dag_id: str, run_id: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The results of the tasks that the note is about, by task group and operator, as :func:`by_group` returns them."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    # A new session, for the reason given in mlengine.listeners.job_cleanup. It only reads.
    with create_session(scoped=False) as session:
        rows = session.execute(
            select(TaskInstance.task_id, TaskInstance.map_index, TaskInstance.operator, XComModel.value)
            .join(
                XComModel,
                (XComModel.dag_id == TaskInstance.dag_id)
                & (XComModel.run_id == TaskInstance.run_id)
                & (XComModel.task_id == TaskInstance.task_id)
                & (XComModel.map_index == TaskInstance.map_index),
            )
            .where(
                TaskInstance.dag_id == dag_id,
                TaskInstance.run_id == run_id,
                TaskInstance.operator.in_([_DATASET, _SUBMIT, _VALIDATE, _PUBLISH]),
                XComModel.key == "return_value",
            )
            .order_by(TaskInstance.map_index)
        ).all()
    return by_group((*row[:3], XComModel.deserialize_value(_Stored(row[3]))) for row in rows)


def by_group(rows: Iterable[tuple[str, int, str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """The results of tasks by task group and operator.

    Each instance of a mapped group is a group, and also has the results of the group's tasks that are not mapped.

    :param rows: task id, map index (-1 if the task is not mapped), operator and result of each task.
    """
    found: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for task_id, map_index, operator, value in rows:
        if isinstance(value, dict):
            found.setdefault((task_id.rpartition(".")[0], map_index), {})[operator] = value
    mapped = {group for group, index in found if index >= 0}
    groups = {group: own for (group, index), own in found.items() if index < 0 and (not group or group not in mapped)}
    for (group, index), own in found.items():
        if index >= 0:
            groups[f"{group}[{index}]"] = {**found.get((group, -1), {}), **own}
    return groups


class _Stored:
    """A row in the form that Airflow's deserializer accepts."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _write(dag_run: Any, text: str) -> None:
    """Write the note in the transaction that ends the run. The transaction must not be committed here, and not fail."""
    from airflow.models.dagrun import DagRunNote
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None:
        return
    insert: Any = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}.get(session.get_bind().dialect.name)
    if insert is None:  # in other databases, a person's concurrent note could make the transaction fail
        return
    table = DagRunNote.__table__
    statement = insert(table).values(dag_run_id=dag_run.id, content=text, user_id=_AUTHOR)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[table.c.dag_run_id],
            set_={"content": statement.excluded.content, "updated_at": statement.excluded.updated_at},
            where=table.c.user_id == _AUTHOR,
        )
    )
