"""The entries that a filter of the Logging query language matches."""

from __future__ import annotations

import pytest

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator.logging_query.match import matcher
from mlengine.emulator.logging_query.syntax import parse

ENTRY = {
    "logName": "projects/p/logs/workerpool0-0",
    "resource": {"type": "ml_job", "labels": {"job_id": "7", "task_name": "workerpool0-0"}},
    "timestamp": "2026-11-23T14:00:00.500000Z",
    "severity": "WARNING",
    "insertId": "000000000012",
    "labels": {"ml.googleapis.com/task_name": "workerpool0-0", "team": "Vision"},
    "jsonPayload": {"message": "Epoch 3: Loss 0.25", "deep": {"flag": True, "number": 4}},
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        # Severities are compared by their order, not by their names.
        ("severity>=NOTICE", True),
        ("severity>=warning", True),
        ("severity>WARNING", False),
        ("severity<ERROR", True),
        ("severity>DEBUG", True),
        ("severity>=EMERGENCY", False),
        ("severity=(ERROR OR WARNING)", True),
        ("severity!=WARNING", False),
        ("severity:WARNING", True),
        ('severity=~"^WARN"', True),
        # “Contains” and “equals” are case-insensitive.
        ("jsonPayload.message:loss", True),
        ('jsonPayload.message:"LOSS 0.2"', True),
        ("jsonPayload.message:gain", False),
        ("jsonPayload.message=loss", False),
        ('jsonPayload.message="epoch 3: loss 0.25"', True),
        ('jsonPayload.message!="EPOCH 3: LOSS 0.25"', False),
        ("jsonPayload:epoch", True),
        ("jsonPayload.deep.flag=true", True),
        ("jsonPayload.deep.number:4", True),
        ("labels.team=vision", True),
        ('labels."ml.googleapis.com/task_name":workerpool0', True),
        ("labels.ml.googleapis.com/task_name:workerpool0", True),
        # Regular expressions are case-sensitive.
        ('jsonPayload.message=~"Loss [0-9.]+$"', True),
        ('jsonPayload.message=~"loss"', False),
        ('jsonPayload.message!~"loss"', True),
        # Times, in any time zone and with nanoseconds.
        ('timestamp>="2026-11-23T14:00:00.5Z"', True),
        ('timestamp>"2026-11-23T14:00:00.500000Z"', False),
        ('timestamp>="2026-11-23T14:00:00.500000001Z"', False),
        ('timestamp<"2026-11-23T14:00:00.500000001Z"', True),
        ('timestamp="2026-11-23T15:00:00.5+01:00"', True),
        ('timestamp>"2026-11-23"', True),
        # Text in any field.
        ('"loss"', True),
        ("ML_JOB", True),
        ("nothing", False),
        # A missing label or field of a payload never matches; a missing field of the entry has its default.
        ("labels.none=x", False),
        ("labels.none!=x", False),
        ("jsonPayload.none:x", False),
        ("NOT labels.none=x", True),
        ('textPayload!="x"', True),
        ('textPayload=""', True),
        ("traceSampled=false", True),
        ("httpRequest.status:2", False),
        # Whether a field is set.
        ("labels.team:*", True),
        ("labels.none:*", False),
        ("jsonPayload:*", True),
        ("textPayload:*", False),
    ],
)
def test_a_filter_matches_an_entry(text: str, holds: bool) -> None:
    assert matcher(parse(text))(ENTRY) is holds


def test_an_entry_without_a_severity_has_the_default() -> None:
    entry = {name: value for name, value in ENTRY.items() if name != "severity"}
    assert matcher(parse("severity=DEFAULT"))(entry)
    assert not matcher(parse("severity:*"))(entry)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("thud=1", "unknown field 'thud'"),
        ("operation.thud=1", r"unknown field 'operation\.thud'"),
        ("textPayload.thud=1", r"unknown field 'textPayload\.thud'"),
        ("resource.job_id=7", r"unknown field 'resource\.job_id'"),
        ("severity>LOUD", "'LOUD' is not a value of LogSeverity"),
        ("timestamp>yesterday", "'yesterday' is not a timestamp"),
        ('timestamp>"2026-02-30T00:00:00Z"', "is not a timestamp"),
        ('timestamp:"2026-11-23"', "operator ':' cannot be used"),
        ("resource.labels=7", "operator '=' cannot be used"),
        ('logName=~"("', "invalid regular expression"),
    ],
)
def test_an_unknown_field_is_rejected(text: str, message: str) -> None:
    with pytest.raises(EmulatorApiError, match=f"^Unparseable filter: .*{message}"):
        matcher(parse(text))
