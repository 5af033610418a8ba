"""A DAG with fail_fast=True is rejected when it is parsed, in every way to create its training tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task_group
from airflow.serialization.serialized_objects import DagSerialization

from mlengine.core.errors import MlengineError
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.sensors.training_job import TrainingJobSensor
from mlengine.task_groups import RetrainingTaskGroup

JOB: Any = {"job_id": "j", "job_dir": "gs://bkt/m/j"}


def _sensor() -> None:
    TrainingJobSensor(task_id="wait", job=JOB)


def _submit() -> None:
    SubmitTrainingJobOperator(task_id="submit", job=JOB, job_file={})


def _mapped_sensor() -> None:
    TrainingJobSensor.partial(task_id="wait").expand(job=[JOB, JOB])


def _mapped_submit() -> None:
    SubmitTrainingJobOperator.partial(task_id="submit", job_file={}).expand(job=[JOB, JOB])


def _task_group() -> None:
    RetrainingTaskGroup(model="m", trainer="/trainer", job_file={"trainingInput": {}})


def _mapped_task_group() -> None:
    @task_group
    def train(job: Any) -> None:
        TrainingJobSensor(task_id="wait", job=job)

    train.expand(job=[JOB, JOB])


WAYS = [_sensor, _submit, _mapped_sensor, _mapped_submit, _task_group, _mapped_task_group]


@pytest.mark.filterwarnings("ignore:.*was never mapped")
@pytest.mark.parametrize("make", WAYS)
def test_fail_fast_is_refused(make: Callable[[], None]) -> None:
    with (
        pytest.raises(MlengineError, match=r"DAG d has fail_fast=True, and its task \S+ runs training jobs"),
        DAG("d", schedule=None, fail_fast=True),
    ):
        make()


def test_fail_fast_is_refused_for_tasks_added_later() -> None:
    operator = TrainingJobSensor(task_id="wait", job=JOB)
    with pytest.raises(MlengineError, match="fail_fast=True"):
        operator.dag = DAG("d", schedule=None, fail_fast=True)


@pytest.mark.parametrize("make", WAYS)
def test_dags_without_fail_fast_are_serialized(make: Callable[[], None]) -> None:
    with DAG("d", schedule=None) as dag:
        make()
    assert set(DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_dict) == set(dag.task_dict)


def test_the_dag_processor_reports_fail_fast_as_an_import_error(tmp_path: Path) -> None:
    """The report is an import error, which the UI shows."""
    from airflow.dag_processing.dagbag import DagBag

    (tmp_path / "d.py").write_text(
        "from airflow.sdk import DAG\n"
        "from mlengine.sensors.training_job import TrainingJobSensor\n"
        "with DAG('d', schedule=None, fail_fast=True):\n"
        "    TrainingJobSensor(task_id='wait', job={})\n"
    )
    bag = DagBag(tmp_path)
    (error,) = bag.import_errors.values()
    assert "remove fail_fast=True" in error
