"""The part of the log store that a filter can match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlengine.core.times import rfc3339
from mlengine.emulator.logging_query.match import matcher
from mlengine.emulator.logging_query.plan import EARLIEST, LATEST, Plan
from mlengine.emulator.logging_query.syntax import And, Comparison, Node, Not, Or, Text, parse

T = 1_800_000_000_000_000
NOW = rfc3339(T / 1e6)
EQUALITY, ORDER = ["=", "!=", ":", ">"], ["=", "!=", "<", "<=", ">", ">="]
COMPARISONS: st.SearchStrategy[Node] = st.one_of(
    st.builds(Comparison, st.just(("resource", "labels", "job_id")), st.sampled_from(EQUALITY), st.just("7")),
    st.builds(Comparison, st.just(("resource", "type")), st.sampled_from(["=", "!="]), st.just("ml_job")),
    st.builds(
        Comparison,
        st.just(("severity",)),
        st.sampled_from([*ORDER, ":"]),
        st.sampled_from(["INFO", "ERROR"]),
    ),
    st.builds(
        Comparison,
        st.just(("timestamp",)),
        st.sampled_from(ORDER),
        st.sampled_from([NOW, NOW[:-1] + "500Z", rfc3339(T / 1e6 + 1)]),
    ),
    st.builds(Comparison, st.just(("insertId",)), st.just(">"), st.just("5")),
    st.just(Text("loss")),
)
NODES: st.SearchStrategy[Node] = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: Or(tuple(parts))),
    ),
    max_leaves=8,
)


def constants(job_id: str = "7", severity: str = "INFO") -> dict[tuple[str, ...], str]:
    return {
        ("resource", "type"): "ml_job",
        ("resource", "labels", "job_id"): job_id,
        ("severity",): severity,
    }


@given(
    node=NODES,
    job_id=st.sampled_from(["7", "8"]),
    severity=st.sampled_from(["INFO", "ERROR"]),
    later=st.sampled_from([-1, 0, 1, 1_000_000]),
    text=st.sampled_from(["loss", "x"]),
)
def test_a_plan_finds_the_entries_that_the_filter_matches(
    node: Node, job_id: str, severity: str, later: int, text: str
) -> None:
    entry = {
        "resource": {"type": "ml_job", "labels": {"job_id": job_id}},
        "severity": severity,
        "timestamp": rfc3339((T + later) / 1e6),
        "insertId": "7",
        "jsonPayload": {"message": text},
    }
    plan = Plan(node)
    part = plan.range(constants(job_id, severity))
    planned = (
        (plan.job_ids is None or job_id in plan.job_ids)
        and part is not None
        and part.first <= T + later <= part.last
        and (part.matches is None or part.matches(entry))
    )
    assert planned is matcher(node)(entry)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("", EARLIEST, LATEST),
        ('resource.type="ml_job" AND resource.labels.job_id="7"', EARLIEST, LATEST),
        (f'timestamp>="{NOW}"', T, LATEST),
        (f'timestamp>"{NOW}"', T + 1, LATEST),
        (f'timestamp<="{NOW}"', EARLIEST, T),
        (f'timestamp<"{NOW}"', EARLIEST, T - 1),
        (f'timestamp="{NOW}"', T, T),
        (f'timestamp>"{NOW[:-1]}001Z"', T + 1, LATEST),
        (f'timestamp>="{NOW[:-1]}001Z"', T + 1, LATEST),
        (f'timestamp<="{NOW[:-1]}001Z"', EARLIEST, T),
        (f'timestamp<"{NOW[:-1]}001Z"', EARLIEST, T),
        (f'severity>=INFO AND timestamp>="{NOW}"', T, LATEST),
        (f'(resource.labels.job_id="7" AND timestamp>="{NOW}") OR (resource.labels.job_id="8")', T, LATEST),
    ],
)
def test_a_range_of_times_is_read_from_the_index(text: str, first: int, last: int) -> None:
    part = Plan(parse(text)).range(constants())
    assert part is not None
    assert (part.first, part.last, part.matches) == (first, last, None)


def test_gclouds_position_becomes_a_range_and_a_condition() -> None:
    text = f'((timestamp="{NOW}" AND insertId>"5") OR timestamp>"{NOW}") AND timestamp<"{rfc3339(T / 1e6 + 1)}"'
    part = Plan(parse(text)).range(constants())
    assert part is not None
    assert (part.first, part.last) == (T, T + 999_999)
    assert part.matches is not None
    assert not part.matches({"timestamp": NOW, "insertId": "5"})
    assert part.matches({"timestamp": NOW, "insertId": "6"})


@pytest.mark.parametrize(
    "text",
    ['resource.type="k8s"', "severity>INFO", 'timestamp="2026-11-23T14:00:00.0000001Z"', 'resource.labels.job_id="8"'],
)
def test_nothing_is_read_if_nothing_can_match(text: str) -> None:
    assert Plan(parse(text)).range(constants()) is None


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ('resource.labels.job_id="Job_A"', {"job_a"}),
        ('resource.labels.job_id="1" AND severity=INFO', {"1"}),
        ('resource.labels.job_id=("1" OR "2")', {"1", "2"}),
        ('(resource.labels.job_id="1" AND a) OR resource.labels.job_id="2"', {"1", "2"}),
        ('resource.labels.job_id="1" resource.labels.job_id="2"', set()),
        ('resource.labels.job_id="1" OR severity=INFO', None),
        ('NOT resource.labels.job_id="1"', None),
        ("", None),
    ],
)
def test_jobs_that_cannot_match_are_excluded(text: str, ids: set[str] | None) -> None:
    assert Plan(parse(text)).job_ids == ids
