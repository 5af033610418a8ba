"""Retrain a model of customers who leave, on the dataset version of each month (docs/monthly.md)."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import DAG, CronPartitionTimetable, Param

from mlengine import params
from mlengine.task_groups import RetrainingTaskGroup

TRAINER = Path(__file__).parents[1] / "examples" / "churn"

with DAG(
    dag_id="churn_monthly",
    schedule=CronPartitionTimetable("0 6 1 * *", timezone="UTC", key_format="%Y-%m-%d"),
    catchup=False,
    max_active_runs=1,
    params={
        "dataset_version": params.dataset_version("churn"),
        "force_retrain": params.force_retrain(),
        "trees": Param(100, type="integer", minimum=1, title="Trees", description="Trees of the model."),
    },
    default_args={"retries": 2},
    doc_md=__doc__,
):
    retrain = RetrainingTaskGroup(
        model="churn",
        trainer=TRAINER,
        job_file={"trainingInput": {"scaleTier": "BASIC", "pythonModule": "churn.train"}},
        dataset="churn",
        args=["--trees", "{{ params.trees }}"],
        thresholds={
            "roc_auc": {"min": 0.8, "max_regression": 0.01},
            "slices": [{"by": "plan", "metric": "roc_auc", "min": 0.75}],
        },
    )
