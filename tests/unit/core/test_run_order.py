"""The order of runs by the age of their data."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from mlengine.core.run_order import RunOrder


def run(key: str = "", at: str = "") -> RunOrder:
    return RunOrder(key, datetime.fromisoformat(at).replace(tzinfo=UTC) if at else None)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (run("2026-06-01"), run("2026-11-01")),
        (run("2026-06"), run("2026-11-01")),
        (run("v9"), run("v12")),
        (run("2026-W07"), run("2026-W12")),
        (run("eu-9"), run("eu-10")),
        # The key decides, not the time at which the run was created: a backfill of June may start in December.
        (run("2026-06-01", "2026-12-24"), run("2026-11-01", "2026-11-01")),
        (run(at="2026-06-01"), run(at="2026-11-01")),
        (run("de", "2026-06-01"), run("us", "2026-11-01")),
        (run("us", "2026-06-01"), run("de", "2026-11-01")),
        (run("2026-06-01", "2026-06-01"), run(at="2026-11-01")),
        (run(at="2026-06-01"), run("v1", "2026-11-01")),
    ],
)
def test_the_older_of_two_runs_is_recognised(older: RunOrder, newer: RunOrder) -> None:
    assert older.older_than(newer)
    assert not newer.older_than(older)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (run(), run()),
        (run(), run(at="2026-11-01")),
        (run("de"), run("us")),
        (run("2026-06-01"), run("2026-06-01")),
        (run("v9", ""), run("2026-11-01", "")),
        (run(at="2026-06-01"), run(at="2026-06-01")),
    ],
)
def test_runs_without_an_order_are_not_older(one: RunOrder, other: RunOrder) -> None:
    assert not one.older_than(other)
    assert not other.older_than(one)


def test_a_run_order_survives_json() -> None:
    order = RunOrder("2026-06-01", datetime(2026, 6, 1, 2, tzinfo=UTC))
    assert RunOrder.from_json(json.loads(json.dumps(order.to_json()))) == order
    assert str(order) == "2026-06-01"
    assert str(run(at="2026-06-01T08:30")) == "2026-06-01 08:30+00:00"


@pytest.mark.parametrize("data", [None, "x", {"as_of": "yesterday"}, {"as_of": None, "partition_key": None}])
def test_an_unreadable_run_order_is_unknown(data: Any) -> None:
    assert RunOrder.from_json(data) == RunOrder()


def test_a_job_without_a_run_is_ordered_by_its_submission() -> None:
    moment = datetime(2026, 11, 20, 10, tzinfo=UTC)
    events = [{"time": moment.timestamp(), "event": "claimed"}, {"time": moment.timestamp() + 60, "event": "attempt"}]
    assert RunOrder.from_lineage({"inputs": {}, "events": events}) == RunOrder("", moment)
    unknown = {"inputs": {"run": {"partition_key": "", "as_of": None}}, "events": events}
    assert RunOrder.from_lineage(unknown) == RunOrder("", moment)
    known = {"inputs": {"run": {"partition_key": "v1", "as_of": None}}, "events": events}
    assert RunOrder.from_lineage(known) == RunOrder("v1")
    assert RunOrder.from_lineage({}) == RunOrder()
