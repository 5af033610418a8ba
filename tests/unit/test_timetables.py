"""DatasetVersionTimetable: the runs of the scheduler, a backfill and a manual trigger."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pendulum
import pytest
from airflow.exceptions import InvalidPartitionKeyError
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import DagRunInfo, TimeRestriction

from mlengine.core.errors import DatasetError
from mlengine.plugin import MlenginePlugin
from mlengine.timetables import DatasetVersionTimetable

VERSIONS = {"v2": "2026-03-02", "v1": "2026-01-15", "v10": "2026-09-01"}


def timetable(cron: str = "0 6 * * *", **options: Any) -> DatasetVersionTimetable:
    return DatasetVersionTimetable(cron, versions=VERSIONS, **options)


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("first", "last", "versions"),
    [
        ("2026-01-01", "2026-12-31", ["v1", "v2", "v10"]),
        ("2026-01-15", "2026-03-02", ["v1", "v2"]),
        ("2026-01-16", "2026-03-01", []),
    ],
)
def test_a_backfill_runs_the_versions_between_two_days(first: str, last: str, versions: list[str]) -> None:
    infos = list(timetable().iter_partition_dagrun_infos(earliest=day(first), latest=day(last)))
    assert [info.partition_key for info in infos] == versions
    assert [info.partition_date for info in infos] == [day(VERSIONS[version]) for version in versions]
    assert all(info.data_interval is None for info in infos)


def test_a_given_partition_key_must_be_a_version() -> None:
    assert timetable().resolve_partition_date("v10") == day("2026-09-01")
    assert timetable().resolve_partition_date(None) is None
    with pytest.raises(InvalidPartitionKeyError, match="unknown dataset version 'v3'; the versions are v1, v2, v10"):
        timetable().resolve_partition_date("v3")


def _next(now: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    monkeypatch.setattr("airflow.timetables.trigger.utcnow", lambda: pendulum.instance(day(now)))
    free = TimeRestriction(earliest=None, latest=None, catchup=False)
    return timetable(**options).next_dagrun_info_v2(last_dagrun_info=None, restriction=free)


@pytest.mark.parametrize(("now", "version"), [("2026-02-01", "v1"), ("2026-05-05", "v2"), ("2027-01-01", "v10")])
def test_a_scheduled_run_uses_the_newest_version_at_its_date(
    monkeypatch: pytest.MonkeyPatch, now: str, version: str
) -> None:
    info = _next(now, monkeypatch)
    assert (info.partition_key, info.partition_date) == (version, day(VERSIONS[version]))
    assert info.run_after >= day(now)


@pytest.mark.parametrize(
    ("zone", "cron", "now", "version"),
    [
        # 06:00 in Tokyo is 21:00 UTC of the previous day.
        ("Asia/Tokyo", "0 6 * * *", "2026-03-01T20:00", "v2"),
        ("Asia/Tokyo", "0 6 * * *", "2026-02-28T20:00", "v1"),
        # 20:00 in New York is 01:00 UTC of the next day.
        ("America/New_York", "0 20 * * *", "2026-03-02T00:30", "v1"),
        ("America/New_York", "0 20 * * *", "2026-03-03T00:30", "v2"),
    ],
)
def test_a_versions_day_begins_in_the_schedules_time_zone(
    monkeypatch: pytest.MonkeyPatch, zone: str, cron: str, now: str, version: str
) -> None:
    info = _next(now, monkeypatch, cron=cron, timezone=zone)
    assert info.partition_key == version
    assert info.partition_date.in_timezone(zone).isoformat()[:19] == f"{VERSIONS[version]}T00:00:00"


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_a_backfill_runs_the_versions_of_local_days(zone: str) -> None:
    # Airflow passes the dates that a user entered as midnight in UTC.
    infos = list(
        timetable(timezone=zone).iter_partition_dagrun_infos(earliest=day("2026-03-02"), latest=day("2026-03-02"))
    )
    assert [info.partition_key for info in infos] == ["v2"]
    assert infos[0].partition_date == timetable(timezone=zone).resolve_partition_date("v2")
    assert infos[0].run_after == pendulum.datetime(2026, 3, 2, tz=zone)


def test_nothing_runs_before_the_first_version(monkeypatch: pytest.MonkeyPatch) -> None:
    info = _next("2026-01-01", monkeypatch)
    assert (info.partition_key, info.run_after) == ("v1", day("2026-01-15T06:00"))


@pytest.mark.parametrize("last", [None, "2026-01-10T06:00"])
def test_a_catch_up_begins_with_the_first_version(last: str | None) -> None:
    """Airflow asks for the first tick after the start date, and never again if there is none."""
    whole = TimeRestriction(earliest=pendulum.instance(day("2026-01-01")), latest=None, catchup=True)
    before = last and DagRunInfo(
        run_after=pendulum.instance(day(last)), data_interval=None, partition_date=None, partition_key=None
    )
    info = timetable().next_dagrun_info_v2(last_dagrun_info=before or None, restriction=whole)
    assert info is not None
    assert (info.partition_key, info.run_after) == ("v1", day("2026-01-15T06:00"))


def test_a_schedule_that_ends_before_the_first_version_has_no_runs() -> None:
    short = TimeRestriction(
        earliest=pendulum.instance(day("2026-01-01")), latest=pendulum.instance(day("2026-01-10")), catchup=True
    )
    assert timetable().next_dagrun_info_v2(last_dagrun_info=None, restriction=short) is None


def test_airflow_serializes_the_timetable() -> None:
    assert DatasetVersionTimetable in MlenginePlugin.timetables
    with DAG("by_version", schedule=timetable()) as dag:
        pass
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag)).timetable
    assert isinstance(again, DatasetVersionTimetable)
    assert again.serialize() == timetable().serialize()
    assert again.partitioned
    assert again.summary == "0 6 * * *, 3 dataset versions"


@pytest.mark.parametrize("zone", ["Asia/Tokyo", pendulum.timezone("America/New_York"), pendulum.FixedTimezone(19_800)])
def test_airflow_keeps_the_time_zone(zone: Any) -> None:
    with DAG("by_version", schedule=timetable(timezone=zone)) as dag:
        pass
    stored = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    again = DagSerialization.from_dict(stored).timetable
    assert isinstance(again, DatasetVersionTimetable)
    assert again._timezone == timetable(timezone=zone)._timezone


@pytest.mark.parametrize(
    ("versions", "word"),
    [
        ({}, "no versions"),
        ({"v1": "soon"}, "invalid day"),
        ({"v1": None}, "invalid day None"),
        ({"v1": "2026-01-15", "v2": "2026-01-15"}, "two versions have the same day: v1, v2"),
        (["v1", "v2"], r"versions must be a mapping of versions to days, not \['v1', 'v2'\]"),
        ("v1", "versions must be a mapping of versions to days, not 'v1'"),
        (None, "versions must be a mapping of versions to days, not None"),
        ({1: "2026-01-15"}, "invalid version name: 1"),
        ({"a/b": "2026-01-15"}, "invalid dataset version: 'a/b'"),
    ],
)
def test_an_invalid_schedule_is_refused(versions: Any, word: str) -> None:
    with pytest.raises(DatasetError, match=word):
        DatasetVersionTimetable("0 6 * * *", versions=versions)
