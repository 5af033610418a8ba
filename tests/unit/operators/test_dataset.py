"""ResolveDatasetOperator: the dataset version of a run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.sdk import (
    DAG,
    Asset,
    AssetOrTimeSchedule,
    CronPartitionTimetable,
    CronTriggerTimetable,
    MultipleCronTriggerTimetable,
)
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction
from scripts import mnist

from mlengine import connections
from mlengine.core.errors import DatasetError
from mlengine.core.layout import dataset_dir, join
from mlengine.operators.dataset import ResolveDatasetOperator, run_date
from mlengine.storage.client import Storage
from mlengine.timetables import DatasetVersionTimetable

pytestmark = pytest.mark.integration

DAY, MARCH = "%Y-%m-%d", "2026-03-01"
VERSIONS = ("2026-01-01", "2026-03-01", "v12")


@pytest.fixture(scope="module")
def registered(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of one small version, created once."""
    return mnist.subset(digits, tmp_path_factory.mktemp("digits"), train=300)


@pytest.fixture
def versions(storage: Storage, bucket: str, registered: Path) -> Iterator[str]:
    from mlengine import datasets

    for version in VERSIONS:
        datasets.add(storage, bucket, "digits", version, registered, license="l", source="s")
    connections.forget_connections()
    yield bucket
    connections.forget_connections()


def resolved(bucket: str, *, version: str = "", key: str = "", at: str = "2027-01-01") -> str:
    operator = ResolveDatasetOperator(
        task_id="dataset", dataset="digits", version=version, partition_key=key, at=at, bucket=bucket, gcp_conn_id=None
    )
    result = operator.execute({"dag": DAG("digits", schedule=None)})
    assert result["uri"] == dataset_dir(bucket, "digits", result["version"])
    assert len(result["digest"]) == 64
    return str(result["version"])


def scheduled(bucket: str, schedule: Any, tick: str, start_date: datetime | None = None) -> str:
    """The version of the run that Airflow's scheduler creates for the tick at ``tick`` (UTC)."""
    with DAG("digits", schedule=schedule, start_date=start_date, params={}) as dag:
        operator = ResolveDatasetOperator(task_id="dataset", dataset="digits", bucket=bucket, gcp_conn_id=None)
    timetable = DagSerialization.from_dict(DagSerialization.to_dict(dag)).timetable
    due = pendulum.instance(datetime.fromisoformat(tick))
    limits = TimeRestriction(earliest=due.subtract(minutes=1), latest=None, catchup=True)
    info = timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=limits)
    assert info is not None
    assert info.run_after == due
    run = SimpleNamespace(
        run_type="scheduled",
        partition_key=info.partition_key,
        partition_date=info.partition_date,
        logical_date=info.data_interval and info.data_interval.start,
        run_after=info.run_after,
    )
    context: Any = {"dag": dag, "dag_run": run, "params": {}}
    operator.render_template_fields(context)
    return str(operator.execute(context)["version"])


TOKYO_MONTH, NEW_YORK_MONTH = "2026-02-28T15:00:00Z", "2026-03-01T05:00:00Z"
NEW_YORK_EVENING = "2026-03-01T01:00:00Z"  # 20:00 on February 28 there


@pytest.mark.parametrize(
    ("schedule", "tick", "version"),
    [
        (CronTriggerTimetable("0 0 1 * *", timezone="Asia/Tokyo"), TOKYO_MONTH, "2026-03-01"),
        (CronTriggerTimetable("0 0 1 * *", timezone="America/New_York"), NEW_YORK_MONTH, "2026-03-01"),
        (CronTriggerTimetable("0 20 28 2 *", timezone="America/New_York"), NEW_YORK_EVENING, "2026-01-01"),
        (MultipleCronTriggerTimetable("0 0 1 * *", timezone="Asia/Tokyo"), TOKYO_MONTH, "2026-03-01"),
        (
            AssetOrTimeSchedule(
                timetable=CronTriggerTimetable("0 0 1 * *", timezone="Asia/Tokyo"), assets=[Asset("digits")]
            ),
            TOKYO_MONTH,
            "2026-03-01",
        ),
        (CronPartitionTimetable("0 0 1 * *", timezone="Asia/Tokyo", key_format=DAY), TOKYO_MONTH, "2026-03-01"),
        # A key that is not a version, in each format: the newest version at that time.
        (CronPartitionTimetable("0 0 1 * *", timezone="Asia/Tokyo"), TOKYO_MONTH, "2026-03-01"),
        (CronPartitionTimetable("0 0 1 * *", timezone="Asia/Tokyo", key_format="%Y-%m"), TOKYO_MONTH, "2026-03-01"),
        (
            CronPartitionTimetable("0 20 28 2 *", timezone="America/New_York", key_format=DAY),
            NEW_YORK_EVENING,
            "2026-01-01",
        ),
        (CronPartitionTimetable("0 20 28 2 *", timezone="America/New_York"), NEW_YORK_EVENING, "2026-01-01"),
        (
            DatasetVersionTimetable(
                "0 0 * * *", versions={"2026-01-01": "2026-01-01", "v12": MARCH}, timezone="Asia/Tokyo"
            ),
            TOKYO_MONTH,
            "v12",
        ),
        (
            DatasetVersionTimetable(
                "0 20 28 * *", versions={"2026-01-01": "2026-01-01", "v12": MARCH}, timezone="America/New_York"
            ),
            NEW_YORK_EVENING,
            "2026-01-01",
        ),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "validate") else str(value),
)
def test_the_day_depends_on_the_time_zone_of_the_schedule(
    versions: str, schedule: Any, tick: str, version: str
) -> None:
    assert scheduled(versions, schedule, tick) == version


@pytest.mark.parametrize(
    ("zone", "cron", "tick", "version"),
    [
        ("Asia/Tokyo", "0 0 1 * *", TOKYO_MONTH, "2026-03-01"),
        ("America/New_York", "0 20 28 2 *", NEW_YORK_EVENING, "2026-01-01"),
    ],
)
def test_a_cron_expression_is_in_the_time_zone_of_the_start_date(
    versions: str, zone: str, cron: str, tick: str, version: str
) -> None:
    start = pendulum.datetime(2020, 1, 1, tz=zone)
    assert scheduled(versions, cron, tick, start_date=start) == version


@pytest.mark.parametrize(
    ("run", "day"),
    [
        ({"run_type": "manual", "logical_date": None}, date(2026, 3, 2)),
        ({"run_type": "manual", "logical_date": pendulum.datetime(2026, 1, 31, 20)}, date(2026, 2, 1)),
        # The logical date is the start of the data interval, and the run is about the end of the interval.
        ({"run_type": "scheduled", "logical_date": pendulum.datetime(2026, 1, 31, 20)}, date(2026, 3, 2)),
    ],
)
def test_a_run_without_a_partition_uses_its_date(run: dict[str, Any], day: date) -> None:
    made = SimpleNamespace(partition_date=None, run_after=pendulum.datetime(2026, 3, 1, 20), **run)
    assert run_date(made, ZoneInfo("Asia/Tokyo")) == day


def test_a_date_as_the_key_of_an_asset_event_is_used(versions: str) -> None:
    """The date in the key counts, although the run is from today."""
    assert resolved(versions, key="2026-02-10", at="") == "2026-01-01"
    assert resolved(versions, key="2026-03-01T00-00", at="") == "2026-03-01"


def test_form_then_partition_key_then_newest_version(versions: str) -> None:
    assert resolved(versions, version="v12", key="2026-01-01") == "v12"
    assert resolved(versions, key="2026-01-01") == "2026-01-01"
    assert resolved(versions, key="v12") == "v12"
    assert resolved(versions) == "2026-03-01"
    assert resolved(versions, at="2026-02-15") == "2026-01-01"


def test_a_date_without_a_version_means_the_newest_at_that_date(versions: str) -> None:
    assert resolved(versions, key="2026-02-01", at="2026-02-01") == "2026-01-01"


@pytest.mark.parametrize("asked", [{"key": "v13"}, {"version": "2026-02-01"}])
def test_a_named_version_that_does_not_exist_is_an_error(versions: str, asked: dict[str, str]) -> None:
    with pytest.raises(DatasetError, match=r"no version .* versions: v12, 2026-01-01, 2026-03-01"):
        resolved(versions, **asked)


def test_a_damaged_version_is_not_replaced_by_another(storage: Storage, versions: str) -> None:
    storage.write(join(dataset_dir(versions, "digits", "2026-03-01"), "manifest.json"), b"{")
    with pytest.raises(DatasetError, match=r"2026-03-01/manifest\.json"):
        resolved(versions, key="2026-03-01")
