"""The DAGs of the backfill tests: one pipeline, started in each possible way."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import (
    DAG,
    CronPartitionTimetable,
    Param,
    PartitionedAssetTimetable,
    PartitionedAtRuntime,
    get_current_context,
    task,
)

from mlengine.assets import champion_asset, dataset_asset
from mlengine.task_groups import RetrainingTaskGroup
from mlengine.timetables import DatasetVersionTimetable

TRAINER = Path(__file__).parents[1] / "trainer"
COMMON: dict[str, Any] = {
    "catchup": False,
    "max_active_runs": 3,
    "params": {
        "force_retrain": Param(False, type="boolean"),
        "dataset_version": Param(None, type=["null", "string"]),
    },
}


def pipeline(dataset: str) -> None:
    RetrainingTaskGroup(
        model=dataset,
        trainer=TRAINER,
        job_file={"trainingInput": {"pythonModule": "centroids.task"}},
        dataset=dataset,
        validation_level="files",
        require_comparison=False,
    )


# The schedule ends with the dataset versions: after a backfill, Airflow 3.3 continues from the last run it created, and
# would immediately start the current month's run if there is none yet.
with DAG(
    "monthly",
    schedule=CronPartitionTimetable("0 0 1 * *", timezone="UTC", key_format="%Y-%m-%d"),
    end_date=datetime(2024, 7, 31, tzinfo=UTC),
    **COMMON,
):
    pipeline("digits")

with DAG("each_minute", schedule=CronPartitionTimetable("* * * * *", timezone="UTC", key_format="%Y-%m-%d"), **COMMON):
    pipeline("digits")

with DAG("on_new_version", schedule=PartitionedAssetTimetable(assets=dataset_asset("named")), **COMMON):
    pipeline("named")

VERSIONS = {"v9": "2024-01-10", "v10": "2024-02-10", "v11": "2024-03-10"}
# This schedule ends there too: after six o'clock, a scheduled run would train the newest version before the
# tests do.
with DAG(
    "by_name",
    schedule=DatasetVersionTimetable("0 6 * * *", versions=VERSIONS),
    end_date=datetime(2024, 12, 31, tzinfo=UTC),
    **COMMON,
):
    pipeline("named")

with DAG("register", schedule=PartitionedAtRuntime(), catchup=False, params={"version": Param("v9", type="string")}):

    @task(outlets=[dataset_asset("named")])
    def registered() -> None:
        """Emits the event for a new version, as the last task of a DAG that creates a dataset does."""
        context = get_current_context()
        context["outlet_events"][dataset_asset("named")].add_partitions([context["params"]["version"]])

    registered()


# A DAG that serves a model runs when its champion changes.
with DAG("serve", schedule=PartitionedAssetTimetable(assets=champion_asset("named")), catchup=False):

    @task(inlets=[champion_asset("named")])
    def served() -> dict[str, Any]:
        """Return the extra of the publication's event."""
        return dict(get_current_context()["inlet_events"][champion_asset("named")][-1].extra or {})

    served()
