"""A pipeline whose run ids come from its schedule: a recreated run has the same id as the deleted one."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG

from mlengine.operators.prepare import PrepareJobDirOperator
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.sensors.training_job import TrainingJobSensor

with DAG(
    "wait_weekly",
    schedule="@weekly",
    start_date=datetime(2026, 6, 1, tzinfo=UTC),
    end_date=datetime(2026, 6, 30, tzinfo=UTC),
    catchup=False,
    render_template_as_native_obj=True,
):
    prepared = PrepareJobDirOperator(
        task_id="prepare", model="{{ dag_run.conf['model'] }}", job_id_hint="{{ dag_run.run_id }}", gcp_conn_id="waits"
    )
    submitted = SubmitTrainingJobOperator(
        task_id="submit",
        job=prepared.output,
        job_file="{{ dag_run.conf['job_file'] }}",
        backend="local",
        backend_options="{{ dag_run.conf['options'] }}",
        gcp_conn_id="waits",
    )
    TrainingJobSensor(
        task_id="wait",
        job=submitted.output,
        backend_options="{{ dag_run.conf['options'] }}",
        gcp_conn_id="waits",
        poll_interval_seconds=1.0,
    )
