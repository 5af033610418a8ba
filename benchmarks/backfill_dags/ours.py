"""A DAG with our seven tasks, on a backend that does not train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.sdk import DAG, CronPartitionTimetable, Param

from mlengine import backends
from mlengine.task_groups import RetrainingTaskGroup

ROOT = Path(__file__).parents[2]
COMMON: dict[str, Any] = {"catchup": False, "max_active_runs": 8, "default_args": {"retries": 0}}
MONTHLY: dict[str, Any] = {"timezone": "UTC", "key_format": "%Y-%m-%d"}

backends.register("instant", "instant:InstantBackend")


with DAG(
    "instant",
    schedule=CronPartitionTimetable("0 0 1 * *", **MONTHLY),
    params={"force_retrain": Param(False, type="boolean"), "dataset_version": Param(None, type=["null", "string"])},
    **COMMON,
):
    RetrainingTaskGroup(
        model="instant",
        trainer=ROOT / "examples" / "hello",
        job_file={"trainingInput": {"pythonModule": "hello.task"}},
        dataset="digits",
        validation_level="files",
        require_comparison=False,
        backend="instant",
    )
