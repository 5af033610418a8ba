"""A timetable for dataset versions whose names are not dates.

Airflow 3.3's ``CronPartitionTimetable`` derives a run's partition key from a date. If versions have names such as
``v12``, a backfill must know which version belongs to which date. :class:`DatasetVersionTimetable` adds that.

It runs in the scheduler and does no I/O, because the DAG file lists the versions. It overrides two private methods of
Airflow 3.3 (``_get_partition_info``, ``_decode_partition_date``); a test checks that they behave as expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from airflow.exceptions import InvalidPartitionKeyError
from airflow.timetables.base import DagRunInfo
from airflow.timetables.trigger import CronPartitionTimetable

from mlengine.core.dataset import check_version_name
from mlengine.core.errors import DatasetError

if TYPE_CHECKING:
    from airflow.timetables.base import TimeRestriction, Timetable
    from pendulum.tz.timezone import FixedTimezone, Timezone


class DatasetVersionTimetable(CronPartitionTimetable):
    """Runs on a cron schedule. Each run uses the newest version at its time. A backfill has one run per version.

    :param cron: the cron expression, such as ``0 6 * * *``. Until there is a newer version, runs use the same version,
        and their jobs are ``reused``.
    :param versions: a mapping of versions to their days in ``timezone``, in any order, such as
        ``{"v1": "2026-01-15", "v2": "2026-03-02"}``. A version is available from the beginning of its day.
    :param timezone: the time zone of ``cron`` and of the days, such as ``Asia/Tokyo``.
    :raises DatasetError: there are no versions, a day is invalid, or two versions have the same day, which is not
        possible because Airflow identifies a backfill's runs by their day.
    """

    def __init__(
        self, cron: str, *, versions: Mapping[str, str | date], timezone: str | Timezone | FixedTimezone = "UTC"
    ) -> None:
        super().__init__(cron, timezone=timezone)
        if not isinstance(versions, Mapping):
            raise DatasetError(
                f"versions must be a mapping of versions to days, not {versions!r}",
                hint='pass the day of each version: versions={"v1": "2026-01-15", "v2": "2026-03-02"}',
            )
        days = {version: _day(version, day) for version, day in versions.items()}
        self._versions = dict(sorted(days.items(), key=lambda pair: pair[1]))
        if not days:
            raise DatasetError("the schedule has no versions", hint='pass versions={"v1": "2026-01-15"}')
        if len(set(days.values())) < len(days):
            raise DatasetError(
                f"two versions have the same day: {_shown(days)}", hint="give each version a different day"
            )

    @property
    def summary(self) -> str:
        return f"{self._expression}, {len(self._versions)} dataset versions"

    def serialize(self) -> dict[str, Any]:
        from airflow.serialization.encoders import encode_timezone

        days = {version: day.isoformat() for version, day in self._versions.items()}
        return {"cron": self._expression, "versions": days, "timezone": encode_timezone(self._timezone)}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        import pendulum

        return cls(data["cron"], versions=data["versions"], timezone=pendulum.timezone(data["timezone"]))

    def next_dagrun_info_v2(
        self, *, last_dagrun_info: DagRunInfo | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next run: the next time of the cron schedule at which a version is available."""
        first = self._begin(next(iter(self._versions.values())))
        info = super().next_dagrun_info_v2(last_dagrun_info=last_dagrun_info, restriction=restriction)
        if info is None or info.run_after >= first:
            return info
        # If Airflow gets no run for a time during catch-up, it never asks again for later times.
        later = restriction._replace(earliest=first)
        return super().next_dagrun_info_v2(last_dagrun_info=None, restriction=later)

    def iter_partition_dagrun_infos(self, *, earliest: datetime, latest: datetime) -> Iterable[DagRunInfo]:
        """The runs of a backfill: one for each version whose day is between ``earliest`` and ``latest``, oldest first.

        As in Airflow's own timetables, the wall-clock times of ``earliest`` and ``latest`` are used, whatever their
        time zone.
        """
        for version, day in self._versions.items():
            if earliest.date() <= day <= latest.date():
                begin = self._begin(day)
                yield DagRunInfo(run_after=begin, data_interval=None, partition_date=begin, partition_key=version)

    def _get_partition_info(self, run_date: Any) -> Any:
        available = [version for version, day in self._versions.items() if self._begin(day) <= run_date]
        version = available[-1] if available else next(iter(self._versions))
        return self._begin(self._versions[version]), version

    def _decode_partition_date(self, partition_key: str) -> datetime:
        if partition_key not in self._versions:
            raise InvalidPartitionKeyError(
                f"unknown dataset version {partition_key!r}; the versions are {_shown(self._versions)}"
            )
        begin: datetime = self._begin(self._versions[partition_key])
        return begin

    def _begin(self, day: date) -> Any:
        """The beginning of a day in this schedule's time zone, as a pendulum DateTime in UTC."""
        return self.localize_partition_datetime(datetime(day.year, day.month, day.day))  # noqa: DTZ001 localized here


def _day(version: str, day: str | date) -> date:
    if not isinstance(version, str):
        raise DatasetError(f"invalid version name: {version!r}", hint='write versions={"v1": "2026-01-15"}')
    check_version_name(version)
    try:
        found = date.fromisoformat(day) if isinstance(day, str) else day
        return date(found.year, found.month, found.day)
    except (ValueError, TypeError, AttributeError) as error:
        raise DatasetError(f"version {version}: invalid day {day!r}", hint="write 2026-01-15") from error


def _shown(versions: Mapping[str, Any]) -> str:
    names = list(versions)
    return ", ".join(names[-12:]) if len(names) <= 12 else f"… {', '.join(names[-12:])}"
