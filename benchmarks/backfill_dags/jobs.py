"""DAGs with our seven tasks and small real jobs, for backfills of many versions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import DAG, CronPartitionTimetable

from mlengine.task_groups import RetrainingTaskGroup

ROOT = Path(__file__).parents[2]
END = datetime(2024, 12, 31, tzinfo=UTC)
MONTHLY = CronPartitionTimetable("0 0 1 * *", timezone="UTC", key_format="%Y-%m-%d")

# One DAG for each length, because a DAG has only one backfill at a time, and Airflow checks only every 30 s whether it
# has finished. The end date is that of the versions: after a backfill, Airflow schedules from the last run on, and
# would also start the current month.
for number in range(4):
    name = f"jobs_{number}"
    with DAG(name, schedule=MONTHLY, end_date=END, catchup=False, max_active_runs=8, default_args={"retries": 0}):
        RetrainingTaskGroup(
            model=name,
            trainer=ROOT / "tests" / "e2e" / "backfill_lab" / "trainer",
            job_file={"trainingInput": {"pythonModule": "centroids.task"}},
            dataset="digits",
            validation_level="files",
            require_comparison=False,
        )
