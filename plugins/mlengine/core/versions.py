"""The order of dataset versions: dates by date, ``v12`` after ``v9``, and the newest at a moment.

A version that starts as a date does (``2026-11-01``, ``20261101``, ``2026-11``, ``2026-11-01T06-00``) has the time
that its name says; any other (``v12``) has none but that of its registration, which the caller may give.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta

_DATED = re.compile(
    r"^(?P<year>\d{4})(?P<sep>[-._]?)(?P<month>\d{2})(?:(?P=sep)(?P<day>\d{2})"
    r"(?:[T_-]?(?P<hour>\d{2})(?:[-._]?(?P<minute>\d{2})(?:[-._]?(?P<second>\d{2}))?)?Z?)?)?$"
)
_DIGITS = re.compile(r"(\d+)")

Key = tuple[int, datetime, tuple[tuple[int, int, str], ...], str]


def version_time(version: str) -> datetime | None:
    """The moment (UTC) that a dated version names; ``None`` if the name is no date."""
    match = _DATED.fullmatch(version)
    if match is None or (match["day"] is None and not match["sep"]):  # 202611 may as well be a serial number
        return None
    parts = [int(match[part] or default) for part, default in _PARTS]
    try:
        return datetime(parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], tzinfo=UTC)
    except ValueError:  # 2026-13-01: a name like any other
        return None


_PARTS = (("year", 1), ("month", 1), ("day", 1), ("hour", 0), ("minute", 0), ("second", 0))


def version_key(version: str) -> Key:
    """Sorts oldest first: names that are no dates in natural order, then dates in theirs."""
    time = version_time(version)
    natural = tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in _DIGITS.split(version) if part)
    return (0 if time is None else 1, time or datetime.min.replace(tzinfo=UTC), natural, version)


def in_order(versions: Iterable[str]) -> list[str]:
    """Oldest first."""
    return sorted(versions, key=version_key)


def newest(versions: Iterable[str]) -> str | None:
    return max(versions, key=version_key, default=None)


def newest_at(
    versions: Iterable[str], at: date | datetime, registered: Mapping[str, datetime] | None = None
) -> str | None:
    """The newest version that was there at ``at``; ``None`` if there was none.

    :param at: a moment (without a time zone: UTC), or a day, which counts until its end.
    :param registered: when versions without a date in their names were registered; those not in it are left out.
    """
    moment = _moment(at)
    times = {version: version_time(version) or (registered or {}).get(version) for version in versions}
    return newest(version for version, time in times.items() if time is not None and _utc(time) <= moment)


def _moment(at: date | datetime) -> datetime:
    if isinstance(at, datetime):
        return _utc(at)
    return datetime(at.year, at.month, at.day, tzinfo=UTC) + timedelta(days=1) - timedelta(microseconds=1)


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
