"""One instance of each operator, by its task's name in a RetrainingTaskGroup."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pendulum

from mlengine.operators._base import MlengineOperator
from mlengine.operators.dataset import ResolveDatasetOperator
from mlengine.operators.package import PackageTrainerOperator
from mlengine.operators.prepare import PrepareJobDirOperator
from mlengine.operators.publish import PublishModelOperator
from mlengine.operators.register import RegisterModelOperator
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.operators.validate import ValidateModelOperator
from mlengine.sensors.training_job import TrainingJobSensor

JOB = "gs://bucket/model/job"
# The required arguments of each operator.
NEEDED: dict[str, tuple[Callable[..., MlengineOperator], dict[str, Any]]] = {
    "package": (PackageTrainerOperator, {"source": "trainer"}),
    "dataset": (ResolveDatasetOperator, {"dataset": "digits"}),
    "prepare": (PrepareJobDirOperator, {"model": "m"}),
    "submit": (SubmitTrainingJobOperator, {"job": JOB, "job_file": "job.yaml"}),
    "wait": (TrainingJobSensor, {"job": JOB}),
    "validate": (ValidateModelOperator, {"job": JOB}),
    "publish": (PublishModelOperator, {"job": JOB}),
    "register": (RegisterModelOperator, {"job": JOB, "registries": ["mlflow"]}),
}


def make(stage: str, **arguments: Any) -> Any:
    operator, needed = NEEDED[stage]
    return operator(**{"task_id": stage, **needed, **arguments})


def fields() -> list[tuple[str, str]]:
    """All template fields of all operators."""
    return [(stage, field) for stage in NEEDED for field in make(stage).template_fields]


def context(dag: Any, params: dict[str, Any], xcoms: dict[str, Any] | None = None, map_index: int = -1) -> Any:
    """The context with which Airflow renders templates. Tasks that are not in ``xcoms`` returned nothing."""

    def xcom_pull(task_ids: Any = None, default: Any = None, **_: Any) -> Any:
        return (xcoms or {}).get(task_ids, default)

    now = pendulum.datetime(2026, 11, 1)
    run = SimpleNamespace(
        run_id="r", run_type="manual", partition_key="", partition_date=None, run_after=now, logical_date=now, conf={}
    )
    run.triggering_user_name = "anna"
    ti = SimpleNamespace(
        xcom_pull=xcom_pull,
        map_index=map_index,
        get_relevant_upstream_map_indexes=lambda **_: None,
        dag_id=dag.dag_id,
        run_id="r",
        task_id="t",
        try_number=1,
        max_tries=1,
    )
    return {"params": params, "ti": ti, "dag": dag, "dag_run": run, "run_id": "r"}


def render(operator: Any, **given: Any) -> Any:
    """The operator, rendered as Airflow's task runner does: with its DAG's Jinja environment."""
    operator.render_template_fields(context(operator.dag, **given), operator.dag.get_template_env())
    return operator
