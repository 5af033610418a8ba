"""Our seven tasks with real jobs, small ones: for backfills of many versions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import DAG, CronPartitionTimetable

from mlengine.pipeline import training_pipeline

ROOT = Path(__file__).parents[2]
END = datetime(2024, 12, 31, tzinfo=UTC)
MONTHLY = CronPartitionTimetable("0 0 1 * *", timezone="UTC", key_format="%Y-%m-%d")

# After a backfill, Airflow counts on from its last run: without an end, the month that has begun would start, too.
with DAG("jobs", schedule=MONTHLY, end_date=END, catchup=False, max_active_runs=8, default_args={"retries": 0}):
    training_pipeline(
        model="jobs",
        trainer=ROOT / "tests" / "e2e" / "backfill_lab" / "trainer",
        job_file={"trainingInput": {"pythonModule": "centroids.task"}},
        dataset="digits",
        checks="files",
    )
