"""The order of dataset versions, and the newest version at a given time.

Names that are dates (``2026-11-01``, ``20261101``, ``2026-11``, ``2026-11-01T06-00``) are ordered by date, in the time
zone that the caller gives. Other names are in natural order (``v12`` after ``v9``); their time is their registration
time, which the caller may give.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, tzinfo

_DATED = re.compile(
    r"^(?P<year>\d{4})(?P<sep>[-._]?)(?P<month>\d{2})(?:(?P=sep)(?P<day>\d{2})"
    r"(?:[T_-]?(?P<hour>\d{2})(?:[-._]?(?P<minute>\d{2})(?:[-._]?(?P<second>\d{2}))?)?(?P<utc>Z)?)?)?$"
)
_ISO_TIME = re.compile(r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}")
_DIGITS = re.compile(r"(\d+)")
_PARTS = (("year", 1), ("month", 1), ("day", 1), ("hour", 0), ("minute", 0), ("second", 0))

Key = tuple[int, datetime, tuple[tuple[int, int, str], ...], str]


def named_date(name: str) -> date | datetime | None:
    """The date or time in ``name``, a version name or a partition key; ``None`` if it is not a date.

    Airflow's default key format (``2026-11-01T00:00:00``) is accepted, although it is not a valid version name. A time
    without ``Z`` or an offset has no time zone.
    """
    if _ISO_TIME.match(name):
        try:
            return datetime.fromisoformat(name)
        except ValueError:
            return None
    match = _DATED.fullmatch(name)
    if match is None or (match["day"] is None and not match["sep"]):  # 202611 may be a serial number
        return None
    year, month, day, hour, minute, second = (int(match[part] or default) for part, default in _PARTS)
    try:
        if match["hour"] is None:
            return date(year, month, day)
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC if match["utc"] else None)
    except ValueError:  # 2026-13-01 is not a date
        return None


def version_time(version: str, zone: tzinfo = UTC) -> datetime | None:
    """The time of a version whose name is a date; ``None`` if the name is not a date.

    :param zone: the time zone of the names: ``2026-11-01`` begins at midnight there.
    """
    named = named_date(version)
    if named is None:
        return None
    if isinstance(named, datetime):
        return _aware(named, zone)
    return datetime(named.year, named.month, named.day, tzinfo=zone)


def version_key(version: str) -> Key:
    """The sort key of a version, oldest first: names that are not dates in natural order, then dates."""
    begins = version_time(version)
    natural = tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in _DIGITS.split(version) if part)
    return (0 if begins is None else 1, begins or datetime.min.replace(tzinfo=UTC), natural, version)


def in_order(versions: Iterable[str]) -> list[str]:
    """``versions`` sorted, oldest first."""
    return sorted(versions, key=version_key)


def newest(versions: Iterable[str]) -> str | None:
    return max(versions, key=version_key, default=None)


def newest_at(
    versions: Iterable[str],
    at: date | datetime,
    registered: Mapping[str, datetime] | None = None,
    zone: tzinfo = UTC,
) -> str | None:
    """The newest version at the time ``at``; ``None`` if there was none.

    :param at: a time (in ``zone`` unless it has a time zone), or a date in ``zone``, which means the end of that day.
    :param registered: the registration times of versions without a date in their names. A version with neither is
        ignored.
    :param zone: the time zone of the dates in version names.
    """
    moment = _moment(at, zone)
    begins = {version: version_time(version, zone) or (registered or {}).get(version) for version in versions}
    return newest(version for version, begin in begins.items() if begin is not None and _aware(begin, UTC) <= moment)


def _moment(at: date | datetime, zone: tzinfo) -> datetime:
    if isinstance(at, datetime):
        return _aware(at, zone)
    return datetime.combine(at, time.max, tzinfo=zone)


def _aware(moment: datetime, zone: tzinfo) -> datetime:
    return moment.replace(tzinfo=zone) if moment.tzinfo is None else moment
