"""The list that a user sees: filters and permissions."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.job_index.rows import Row
from mlengine.web.index import View
from mlengine.web.listing import JobFilter, Listings

ROWS = (
    Row("mnist", "mnist_2", "local", 1, "RUNNING", 1.0, dag_id="a", run_id="r2", dataset="2026-10", by="Ann"),
    Row("mnist", "mnist_1", "local", 1, "FAILED", 1.0, dag_id="a", run_id="r1"),
    Row("flights", "flights_1", "local", 1, "SUCCEEDED", 1.0, dag_id="b", run_id="r1", verdict="accepted"),
)
VIEW = View(ROWS, 1.0)


@pytest.mark.parametrize(
    ("query", "jobs"),
    [
        ({}, ["mnist_2", "mnist_1", "flights_1"]),
        ({"model": "mnist"}, ["mnist_2", "mnist_1"]),
        ({"state": "active"}, ["mnist_2"]),
        ({"state": "ended"}, ["mnist_1", "flights_1"]),
        ({"state": "FAILED"}, ["mnist_1"]),
        ({"text": "aNN"}, ["mnist_2"]),
        ({"text": "accep"}, ["flights_1"]),
        ({"text": " mnist/mnist_1\n"}, ["mnist_1"]),
        ({"text": "  "}, ["mnist_2", "mnist_1", "flights_1"]),
        ({"run_id": "r1"}, ["mnist_1", "flights_1"]),
        ({"run_id": "r1", "dag_id": "b"}, ["flights_1"]),
        ({"text": "r1", "state": "ended", "model": "mnist"}, ["mnist_1"]),
    ],
)
def test_jobs_are_filtered(query: dict[str, Any], jobs: list[str]) -> None:
    found = Listings().of(VIEW, frozenset({"a", "b"})).matching(JobFilter(**query))
    assert [row.job_id for row in found] == jobs


def test_only_permitted_dags_are_listed() -> None:
    listings = Listings()
    assert listings.dags(VIEW) == {"a", "b"}
    both, one = listings.of(VIEW, frozenset({"a", "b"})), listings.of(VIEW, frozenset({"b", ""}))
    assert ([row.job_id for row in one.rows], one.active, one.models) == (["flights_1"], 0, ["flights"])
    assert (len(both.rows), both.active, both.models) == (3, 1, ["flights", "mnist"])


def test_a_changed_view_gives_a_new_list() -> None:
    listings = Listings()
    allowed = frozenset({"a", "b", "c"})
    first = listings.of(VIEW, allowed)
    assert listings.of(View(ROWS, 2.0), allowed) is first, "the list must be cached while the rows are unchanged"
    more = View((ROWS[0]._replace(job_id="mnist_3", dag_id="c"), *ROWS), 3.0)
    assert listings.of(more, allowed).rows[0].job_id == "mnist_3"
    assert listings.dags(more) == {"a", "b", "c"}
