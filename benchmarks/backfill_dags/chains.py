"""What the benchmark of backfills runs: a chain of seven tasks that do nothing, and our seven."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator, CronPartitionTimetable, Param, chain

from mlengine import backends
from mlengine.pipeline import training_pipeline

TASKS = 7
ROOT = Path(__file__).parents[2]
COMMON: dict[str, Any] = {"catchup": False, "max_active_runs": 8, "default_args": {"retries": 0}}
MONTHLY: dict[str, Any] = {"timezone": "UTC", "key_format": "%Y-%m-%d"}
END = datetime(2024, 12, 31, tzinfo=UTC)

backends.register("instant", "instant:InstantBackend")


class Nothing(BaseOperator):
    """What any task costs."""

    def execute(self, context: Any) -> dict[str, str]:  # noqa: ARG002
        return {"nothing": "done"}


with DAG("nothing", schedule=CronPartitionTimetable("0 0 1 * *", **MONTHLY), **COMMON):
    chain(*[Nothing(task_id=f"task_{number}") for number in range(TASKS)])

with DAG(
    "instant",
    schedule=CronPartitionTimetable("0 0 1 * *", **MONTHLY),
    params={"train_again": Param(False, type="boolean"), "dataset_version": Param(None, type=["null", "string"])},
    **COMMON,
):
    training_pipeline(
        model="instant",
        trainer=ROOT / "examples" / "hello",
        job_file={"trainingInput": {"pythonModule": "hello.task"}},
        dataset="digits",
        checks="files",
        backend="instant",
    )

# After a backfill, Airflow counts on from its last run: without an end, the month that has begun would start, too.
with DAG("jobs", schedule=CronPartitionTimetable("0 0 1 * *", **MONTHLY), end_date=END, **COMMON):
    training_pipeline(
        model="jobs",
        trainer=ROOT / "tests" / "e2e" / "backfill_lab" / "trainer",
        job_file={"trainingInput": {"pythonModule": "centroids.task"}},
        dataset="digits",
        checks="files",
    )
