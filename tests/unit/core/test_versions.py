"""The order of versions, and the newest version at a given time."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlengine.core.versions import in_order, named_date, newest, newest_at, version_key, version_time


@pytest.mark.parametrize(
    "order",
    [
        ["v9", "v10", "v12", "v100"],
        ["1.9.0", "1.10.0", "2.0.0"],
        ["2025-12-31", "2026-01-01", "2026-11-01", "2026-11-01T06-00"],
        ["20251231", "2026-01-01", "20260102"],
        ["2026-10", "2026-11", "2026-11-02"],
        ["a", "v1", "v1-rc1", "2026-01-01"],
        ["2026-02-30", "2026-13-01", "2026-01-01"],
        ["202611", "2026-01-01"],
    ],
)
def test_versions_are_ordered(order: list[str]) -> None:
    mixed = order.copy()
    random.Random(1).shuffle(mixed)
    assert in_order(mixed) == order
    assert newest(mixed) == order[-1]


def test_an_empty_list_has_no_newest_version() -> None:
    assert newest([]) is None
    assert newest_at([], date(2026, 1, 1)) is None


@pytest.mark.parametrize(
    ("version", "time"),
    [
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026_11_01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T06-30", datetime(2026, 11, 1, 6, 30, tzinfo=UTC)),
        ("20261101T063015Z", datetime(2026, 11, 1, 6, 30, 15, tzinfo=UTC)),
        ("2026-11", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-31", None),
        ("v2026-11-01", None),
        ("2026-11-01-fixed", None),
        ("12", None),
    ],
)
def test_the_time_in_a_version_name_is_read(version: str, time: datetime | None) -> None:
    assert version_time(version) == time


def test_newest_at_a_day_includes_the_whole_day() -> None:
    versions = ["2026-06-01", "2026-07-01", "2026-07-01T18-00"]
    assert newest_at(versions, date(2026, 7, 1)) == "2026-07-01T18-00"
    assert newest_at(versions, datetime(2026, 7, 1)) == "2026-07-01"  # noqa: DTZ001 - without a zone it is UTC
    assert newest_at(versions, datetime(2026, 6, 30, 23, 59, tzinfo=UTC)) == "2026-06-01"
    assert newest_at(versions, datetime(2026, 7, 1, 1, tzinfo=timezone(timedelta(hours=2)))) == "2026-06-01"
    assert newest_at(versions, date(2026, 5, 31)) is None


TOKYO, NEW_YORK = ZoneInfo("Asia/Tokyo"), ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("at", "zone", "version"),
    [
        (datetime(2026, 6, 30, 15, tzinfo=UTC), TOKYO, "2026-07-01"),  # midnight in Tokyo
        (datetime(2026, 6, 30, 14, 59, tzinfo=UTC), TOKYO, "2026-06-01"),
        (datetime(2026, 7, 1, 3, 59, tzinfo=UTC), NEW_YORK, "2026-06-01"),
        (datetime(2026, 7, 1, 4, tzinfo=UTC), NEW_YORK, "2026-07-01"),  # midnight in New York
        (datetime(2026, 7, 1, 6), TOKYO, "2026-07-01"),  # noqa: DTZ001
        (date(2026, 6, 30), TOKYO, "2026-06-01"),
        (date(2026, 7, 1), NEW_YORK, "2026-07-01T18-00"),
    ],
)
def test_dates_in_names_are_in_the_given_time_zone(at: date, zone: ZoneInfo, version: str) -> None:
    assert newest_at(["2026-06-01", "2026-07-01", "2026-07-01T18-00"], at, zone=zone) == version


@pytest.mark.parametrize(("zone", "version"), [(TOKYO, "v9"), (NEW_YORK, "v10")])
def test_the_end_of_a_day_depends_on_the_time_zone(zone: ZoneInfo, version: str) -> None:
    registered = {"v9": datetime(2026, 6, 30, 12, tzinfo=UTC), "v10": datetime(2026, 6, 30, 20, tzinfo=UTC)}
    assert newest_at(["v9", "v10"], date(2026, 6, 30), registered, zone) == version


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("2026-11-01", date(2026, 11, 1)),
        ("2026-11", date(2026, 11, 1)),
        ("2026-11-01T06-00", datetime(2026, 11, 1, 6)),  # noqa: DTZ001
        ("2026-11-01T06-00Z", datetime(2026, 11, 1, 6, tzinfo=UTC)),
        ("2026-11-01T00:00:00", datetime(2026, 11, 1)),  # noqa: DTZ001 Airflow's default partition key
        ("2026-11-01T00:00:00+09:00", datetime(2026, 11, 1, tzinfo=timezone(timedelta(hours=9)))),
        ("2026-11-31T00:00:00", None),
        ("v12", None),
    ],
)
def test_the_date_in_a_partition_key_is_read(name: str, named: date | None) -> None:
    assert named_date(name) == named


def test_a_version_without_a_date_is_dated_by_its_registration() -> None:
    registered = {"v9": datetime(2026, 6, 1, tzinfo=UTC), "v10": datetime(2026, 7, 1, tzinfo=UTC)}
    assert newest_at(["v9", "v10"], date(2026, 6, 30), registered) == "v9"
    assert newest_at(["v9", "v10"], date(2026, 7, 1), registered) == "v10"
    assert newest_at(["v9", "v10"], date(2026, 7, 1)) is None


_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,12}", fullmatch=True) | st.dates().map(str)


@given(st.lists(_NAMES, max_size=8))
def test_version_names_have_a_total_order(names: list[str]) -> None:
    order = in_order(names)
    assert order == in_order(reversed(names))
    assert len({version_key(name) for name in names}) == len(set(names))


@given(st.lists(st.dates(), min_size=1, max_size=8), st.dates())
def test_newest_at_returns_the_last_version_that_is_not_later(days: list[date], at: date) -> None:
    expected = max((day for day in days if day <= at), default=None)
    assert newest_at([str(day) for day in days], at) == (str(expected) if expected else None)
