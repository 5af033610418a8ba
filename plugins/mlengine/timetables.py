"""Schedules about dataset versions whose names are no dates.

Airflow 3.3's ``CronPartitionTimetable`` makes a run's partition key out of a date. Where versions are called ``v12``,
a backfill needs to be told which version belongs to which date; that is all this adds.

The scheduler reads it, so it asks no bucket: the versions stand in the DAG file. Two of the methods here override
private ones of Airflow 3.3 (``_get_partition_info``, ``_decode_partition_date``); a test pins what they must do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from airflow.exceptions import InvalidPartitionKeyError
from airflow.timetables.base import DagRunInfo
from airflow.timetables.trigger import CronPartitionTimetable

from mlengine.core.errors import DatasetError

if TYPE_CHECKING:
    from airflow.timetables.base import TimeRestriction, Timetable


class DatasetVersionTimetable(CronPartitionTimetable):
    """Runs on a cron schedule about the newest version at that time; a backfill over dates runs the versions of them.

    :param cron: when to look: ``0 6 * * *``. While there is no newer version, runs are about the same one, and are
        ``reused``.
    :param versions: version → the day that it is of, ``{"v1": "2026-01-15", "v2": "2026-03-02"}``, in any order.

    :raises DatasetError: no versions, a day that is none, or two versions of one day: Airflow tells runs of a backfill
        apart by their day.
    """

    def __init__(self, cron: str, *, versions: Mapping[str, str | date], timezone: str = "UTC") -> None:
        super().__init__(cron, timezone=timezone)
        self._zone = timezone
        days = {version: _day(version, day) for version, day in versions.items()}
        self._versions = dict(sorted(days.items(), key=lambda pair: pair[1]))
        if not days:
            raise DatasetError("a schedule about no versions", remedy='give versions={"v1": "2026-01-15"}')
        if len(set(days.values())) < len(days):
            raise DatasetError(f"two versions of one day: {_shown(days)}", remedy="give each version a day of its own")

    @property
    def summary(self) -> str:
        return f"{self._expression}, {len(self._versions)} dataset versions"

    def serialize(self) -> dict[str, Any]:
        days = {version: day.date().isoformat() for version, day in self._versions.items()}
        return {"cron": self._expression, "versions": days, "timezone": self._zone}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        return cls(data["cron"], versions=data["versions"], timezone=data["timezone"])

    def next_dagrun_info_v2(
        self, *, last_dagrun_info: DagRunInfo | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next tick at which there is a version; none, if there is none yet."""
        first = next(iter(self._versions.values()))
        info = super().next_dagrun_info_v2(last_dagrun_info=last_dagrun_info, restriction=restriction)
        return None if info is None or info.run_after < first else info

    def iter_partition_dagrun_infos(self, *, earliest: datetime, latest: datetime) -> Iterable[DagRunInfo]:
        """One run a version whose day lies between the two, the oldest first: what a backfill makes."""
        for version, day in self._versions.items():
            if earliest.date() <= day.date() <= latest.date():
                yield self._info(day, version)

    def _get_partition_info(self, run_date: Any) -> Any:
        known = [(day, version) for version, day in self._versions.items() if day <= run_date]
        day, version = known[-1] if known else next((day, version) for version, day in self._versions.items())
        return _instant(day), version

    def _decode_partition_date(self, partition_key: str) -> datetime:
        if partition_key not in self._versions:
            raise InvalidPartitionKeyError(f"no dataset version {partition_key!r}; known: {_shown(self._versions)}")
        return self._versions[partition_key]

    def _info(self, day: datetime, version: str) -> DagRunInfo:
        when = _instant(day)
        return DagRunInfo(run_after=when, data_interval=None, partition_date=when, partition_key=version)


def _day(version: str, day: str | date) -> datetime:
    try:
        found = date.fromisoformat(day) if isinstance(day, str) else day
        return datetime(found.year, found.month, found.day, tzinfo=UTC)
    except (ValueError, TypeError, AttributeError) as error:
        raise DatasetError(f"version {version}: not a day: {day!r}", remedy="write 2026-01-15") from error


def _instant(day: datetime) -> Any:
    """As Airflow wants it: a pendulum DateTime."""
    import pendulum

    return pendulum.instance(day)


def _shown(versions: Mapping[str, Any]) -> str:
    names = list(versions)
    return ", ".join(names[-12:]) if len(names) <= 12 else f"… {', '.join(names[-12:])}"
