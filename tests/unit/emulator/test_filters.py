"""List filters (AIP-160) as clients of the job APIs write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator.filters import VERTEX_OPERATORS, parse

JOB = {
    "display_name": "my_job",
    "state": "JOB_STATE_RUNNING",
    "create_time": "2026-11-23T14:00:00.500000Z",
    "labels.mlengine-key": "kabc",
    "labels.a key": "x",
}
FIELDS = frozenset({"display_name", "displayName", "state", "create_time", "createTime"})


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ('state="JOB_STATE_RUNNING"', True),
        ("state = JOB_STATE_RUNNING", True),
        ("state = 'JOB_STATE_RUNNING'", True),
        ("state!=JOB_STATE_RUNNING", False),
        ('state="JOB_STATE_RUNNING" AND display_name="other"', False),
        ('state="JOB_STATE_RUNNING" display_name="other"', False),
        ('state="JOB_STATE_FAILED" OR display_name="my_job"', True),
        ('NOT display_name="other"', True),
        ('-display_name="other"', True),
        ('-(display_name="my_job")', False),
        ('(state="A" OR state="JOB_STATE_RUNNING") AND NOT (display_name="other")', True),
        ("display_name:my_*", True),
        ("display_name:*_job", True),
        ('display_name:"m*j*"', True),
        ("display_name:your_*", False),
        ("display_name:my", False),
        ("display_name:my_jo?", False),
        ("display_name=my_*", False),
        ("display_name=MY_JOB", False),
        ("labels.mlengine-key=kabc", True),
        ("labels.mlengine-key:*", True),
        ("labels:mlengine-key", True),
        ('labels."a key"=x', True),
        ("labels:none", False),
        ("labels.none:*", False),
        ("labels.none=x", False),
        ("labels.none!=x", True),
        ('create_time>="2026-11-23T14:00:00Z"', True),
        ('create_time>"2026-11-23T15:00:00.25+01:00"', True),
        ("create_time<2026-11-23T14:00:00.500000001Z", False),
        ('create_time="2026-11-23T15:00:00.5+01:00"', True),
        ('labels.mlengine-key:* AND create_time>="2026-11-23T14:00:01Z"', False),
    ],
)
def test_a_filter_matches_a_job(text: str, holds: bool) -> None:
    assert parse(text).matches(JOB.get) is holds


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a=1 AND b=1 OR c=1", "a=1 AND (b=1 OR c=1)"),
        ("a=1 OR b=1 AND c=1", "(a=1 OR b=1) AND c=1"),
        ("a=1 b=1 OR c=1", "a=1 AND (b=1 OR c=1)"),
        ("a=1 b=1 AND c=1", "(a=1 AND b=1) AND c=1"),
        ("NOT a=1 OR b=1", "(NOT a=1) OR b=1"),
        ("NOT a=1 AND b=1", "(NOT a=1) AND b=1"),
        ("-a=1 b=1", "(NOT a=1) AND b=1"),
        ("a=1 AND NOT b=1 OR c=1", "a=1 AND ((NOT b=1) OR c=1)"),
    ],
)
def test_operators_have_the_documented_precedence(text: str, same: str) -> None:
    """``NOT`` binds tighter than ``OR``, and ``OR`` tighter than ``AND``, for all values of the three fields."""
    for bits in range(8):
        job = {name: str(bits >> place & 1) for place, name in enumerate("abc")}
        assert parse(text).matches(job.get) is parse(same).matches(job.get), job


@pytest.mark.parametrize(
    "text",
    [
        *("state=", "=x", "state", "(state=x", "state=x)", "state=x AND", '"a"="b"', "a=b OR", "a=b AND OR c=d"),
        *("NOT", "AND=x", "create_time>yesterday", 'create_time="2026-13-01T00:00:00Z"', "f(a)=b", "a=b,c", 'a="b'),
    ],
)
def test_an_invalid_filter_is_rejected(text: str) -> None:
    with pytest.raises(EmulatorApiError, match="Invalid filter"):
        parse(text)


def test_an_unknown_field_is_rejected() -> None:
    fields = frozenset({"state"})
    assert parse('state="x" OR labels.any:*', fields)
    with pytest.raises(EmulatorApiError, match="'colour' cannot be filtered on"):
        parse('state="x" AND colour="y"', fields)


@pytest.mark.parametrize(
    "text",
    ["state>A", "state:JOB_*", "display_name<b", 'create_time:"2026-11-23T14:00:00Z"', "labels.a!=b", "labels.a>b"],
)
def test_an_operator_that_is_not_documented_is_rejected(text: str) -> None:
    assert parse(text)
    with pytest.raises(EmulatorApiError, match=r"operator '.*' is not supported for"):
        parse(text, FIELDS, VERTEX_OPERATORS)


def test_the_documented_examples_of_vertex_ai_are_valid() -> None:
    for text in (
        'state="JOB_STATE_SUCCEEDED" AND display_name:"my_job_*"',
        'state!="JOB_STATE_FAILED" OR display_name="my_job"',
        'NOT display_name="my_job"',
        'create_time>"2021-05-18T00:00:00Z"',
        'createTime>"2021-05-18T00:00:00Z"',
        "labels.keyA=valueA",
        "labels.keyB:*",
    ):
        assert parse(text, FIELDS, VERTEX_OPERATORS)


def test_deep_nesting_is_rejected() -> None:
    with pytest.raises(EmulatorApiError, match="nested too deeply"):
        parse("(" * 5000 + "a=b" + ")" * 5000)


@given(st.text() | st.text(alphabet='abANDORT =:<>!()"-.*', max_size=30))
def test_any_string_is_parsed_or_rejected(text: str) -> None:
    with contextlib.suppress(EmulatorApiError):
        assert parse(text).matches(JOB.get) in {True, False}
