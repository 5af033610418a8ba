"""List filters as clients of the job APIs write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator.filters import parse

JOB = {
    "display_name": "my_job",
    "state": "JOB_STATE_RUNNING",
    "create_time": "2026-11-23T14:00:00.500000Z",
    "labels.mlengine-key": "kabc",
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ('state="JOB_STATE_RUNNING"', True),
        ("state = JOB_STATE_RUNNING", True),
        ("state!=JOB_STATE_RUNNING", False),
        ('state="JOB_STATE_RUNNING" AND display_name="other"', False),
        ('state="JOB_STATE_RUNNING" display_name="other"', False),
        ('state="JOB_STATE_FAILED" OR display_name="my_job"', True),
        ('NOT display_name="other"', True),
        ('(state="A" OR state="JOB_STATE_RUNNING") AND NOT (display_name="other")', True),
        ("display_name:my_*", True),
        ("display_name:your_*", False),
        ("labels.mlengine-key=kabc", True),
        ("labels.mlengine-key:*", True),
        ("labels.none:*", False),
        ("labels.none=x", False),
        ("labels.none!=x", True),
        ('create_time>="2026-11-23T14:00:00Z"', True),
        ('create_time>"2026-11-23T15:00:00.25+01:00"', True),
        ("create_time<2026-11-23T14:00:00.500000001Z", False),
        ('labels.mlengine-key:* AND create_time>="2026-11-23T14:00:01Z"', False),
    ],
)
def test_a_filter_matches_a_job(text: str, holds: bool) -> None:
    assert parse(text).matches(JOB.get) is holds


@pytest.mark.parametrize("text", ["state=", "=x", "state", "(state=x", "state=x)", "state=x AND", '"a"="b"', "a=b OR"])
def test_an_invalid_filter_is_rejected(text: str) -> None:
    with pytest.raises(EmulatorApiError, match="Invalid filter"):
        parse(text)


def test_an_unknown_field_is_rejected() -> None:
    fields = frozenset({"state"})
    assert parse('state="x" OR labels.any:*', fields)
    with pytest.raises(EmulatorApiError, match="'colour' cannot be filtered on"):
        parse('state="x" AND colour="y"', fields)


def test_the_value_that_a_field_must_have() -> None:
    found = parse('resource.type="ml_job" AND (resource.labels.job_id="7") AND timestamp>="2026-01-01T00:00:00Z"')
    assert found.equals("resource.labels.job_id") == "7"
    assert parse('(a="1" OR a="2") AND b="3"').equals("a") is None
    assert parse('NOT a="1"').equals("a") is None


@given(st.text())
def test_any_string_is_parsed_or_rejected(text: str) -> None:
    with contextlib.suppress(EmulatorApiError):
        assert parse(text).matches(JOB.get) in {True, False}
