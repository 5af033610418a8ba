"""Permanent errors are not retried."""

from __future__ import annotations

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction

from mlengine.core.errors import (
    BucketMissingError,
    DatasetError,
    JobFileError,
    PackageError,
    StorageUnavailableError,
)
from mlengine.operators._base import RetryByCause
from mlengine.operators.dataset import ResolveDatasetOperator
from mlengine.operators.package import PackageTrainerOperator
from mlengine.operators.prepare import PrepareJobDirOperator
from mlengine.operators.publish import PublishModelOperator
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.operators.validate import ValidateModelOperator
from mlengine.sensors.training_job import TrainingJobSensor


@pytest.mark.parametrize("error", [BucketMissingError, DatasetError, JobFileError, PackageError])
def test_errors_that_a_user_must_fix_are_not_retried(error: type[Exception]) -> None:
    decision = RetryByCause().evaluate(error("job.yaml:3: no such tier"), 1, 3)
    assert decision.action is RetryAction.FAIL
    assert decision.reason == "job.yaml:3: no such tier"


@pytest.mark.parametrize("error", [StorageUnavailableError("silence"), ConnectionError("reset"), MemoryError()])
def test_transient_errors_are_left_to_airflows_retries(error: Exception) -> None:
    assert RetryByCause().evaluate(error, 1, 3).action is RetryAction.DEFAULT


def test_every_operator_has_the_retry_policy_and_a_dag_can_replace_it() -> None:
    stages = [
        PackageTrainerOperator(task_id="a", source="x"),
        ResolveDatasetOperator(task_id="b", dataset="d"),
        PrepareJobDirOperator(task_id="c", model="m"),
        SubmitTrainingJobOperator(task_id="d", job="gs://bkt/m/j", job_file={}),
        TrainingJobSensor(task_id="e", job="gs://bkt/m/j"),
        ValidateModelOperator(task_id="f", job="gs://bkt/m/j"),
        PublishModelOperator(task_id="g", job="gs://bkt/m/j"),
    ]
    assert all(isinstance(stage.retry_policy, RetryByCause) for stage in stages)
    assert PrepareJobDirOperator(task_id="c", model="m", retry_policy=None).retry_policy is None
