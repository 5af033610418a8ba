"""Tests what the listener finds in Airflow's own tables when the run of an old partition ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

# A backfill run among 30 newer runs. Airflow keeps rendered fields only for the newer ones.
_SCRIPT = """
import datetime as dt, json, sys, uuid
from sqlalchemy import insert, text
from airflow import settings
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields as Rendered
from airflow.models.task_state_store import TaskStateStoreModel as Stored
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel

import_all_models()
Base.metadata.create_all(settings.engine)
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
access, handle = json.loads(sys.argv[1])


def values(table, **given):
    for column in table.columns:
        generated = column.nullable or column.default is not None or column.server_default is not None
        if column.name in given or generated or (column.primary_key and column.type.python_type is int):
            continue
        kind = column.type.python_type
        given[column.name] = {int: 0, str: "", bool: False, dt.datetime: NOW, uuid.UUID: uuid.uuid4()}.get(kind)
    return given


with settings.engine.begin() as connection:
    connection.execute(text("PRAGMA foreign_keys=OFF"))

    def add(model, **given):
        connection.execute(insert(model.__table__).values(**values(model.__table__, **given)))

    for day in range(31):
        run_id, when = "old" if day == 0 else f"new_{day}", NOW + dt.timedelta(days=day)
        add(DagRun, dag_id="d", run_id=run_id, run_after=when, state="running", run_type="manual")
    run = connection.execute(text("select id from dag_run where run_id = 'old'")).scalar()
    for task, operator in (("submit", "SubmitTrainingJobOperator"), ("wait", "TrainingJobSensor")):
        mine = {"dag_id": "d", "run_id": "old", "task_id": task, "map_index": -1}
        state = {"operator": operator, "state": "failed", "start_date": NOW, "max_tries": 2, "pool": "p"}
        add(TaskInstance, id=uuid.uuid4(), try_number=1, **state, **mine)
        # Airflow sets the start date of a task that never ran, too.
        never = {**mine, **state, "run_id": "new_1", "state": "upstream_failed"}
        add(TaskInstance, id=uuid.uuid4(), try_number=0, **never)
        add(Rendered, rendered_fields={"backend": "vertex", "gcp_conn_id": "rendered"}, **mine)
        add(Stored, dag_run_id=run, key="mlengine_access", value=json.dumps(access), **mine)
    of_submit = {"dag_id": "d", "run_id": "old", "task_id": "submit", "map_index": -1, "dag_run_id": run}
    add(Stored, key="mlengine_run_uid", value=json.dumps("uid"), **of_submit)
    add(XComModel, key="return_value", value=handle, **of_submit)

from dataclasses import asdict
from mlengine.listeners import job_cleanup

found = [[asdict(request) for request in job_cleanup._requests("d", "old", False)]]
for task in ("submit", "wait"):
    Rendered.delete_old_records(task, "d")  # as at the start of every task of the DAG
found.append([asdict(request) for request in job_cleanup._requests("d", "old", False)])
with job_cleanup._session() as session:
    found.append([asdict(job_cleanup._wait_request(job_cleanup._fields(session, "d", "old")["wait", -1]))])
found.append([asdict(request) for request in job_cleanup._requests("d", "new_1", False)])
with settings.engine.begin() as connection:
    connection.execute(text("update task_instance set operator = 'My' || operator"))
found.append([asdict(request) for request in job_cleanup._requests("d", "old", False)])
print(json.dumps(found))
"""


def test_a_job_is_found_after_its_rendered_fields_were_deleted_and_none_if_no_task_ran(tmp_path: Path) -> None:
    job_dir = "gs://bucket/m/j"
    handle = {"backend": "vertex", "name": "n", "job_id": "j", "attempt": 1, "job_dir": job_dir}
    access = {"gcp_conn_id": "training", "project_id": "p", "region": "r", "backend_options": {"endpoint": "e"}}
    kept: dict[str, Any] = {**access, "backend": "vertex", "job": handle}
    env = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW__CORE__NUM_DAG_RUNS_TO_RETAIN_RENDERED_FIELDS": "30",
    }
    command = [sys.executable, "-c", _SCRIPT, json.dumps([kept, handle])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (before,), (after,), (wait,), never_ran, of_subclasses = json.loads(done.stdout.splitlines()[-1])
    assert (before["backend"], before["gcp_conn_id"]) == ("vertex", "rendered")
    for found in (after, wait):
        assert {name: found[name] for name in access} == access
        assert (found["backend"], found["job_dir"]) == ("vertex", job_dir)
    assert after["key"]
    assert after["owner"] == {"dag_id": "d", "run_id": "old"}
    assert never_ran == []
    assert of_subclasses == [after]
