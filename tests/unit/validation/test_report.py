"""What is kept of a validation: there and back through JSON, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlengine.core.errors import MlengineError, ModelError
from mlengine.core.verdict import Check, Decision, Thresholds, Verdict
from mlengine.validation.job import job_dir_of
from mlengine.validation.report import Predictions, Report

REPORT = Report(
    model="mnist",
    job_id="j",
    job_dir="gs://bucket/mnist/j",
    model_uri="gs://bucket/mnist/j/model",
    verdict=Verdict(Decision.FIRST, ("fine",), (Check("a", 0.5, "b", passed=True, message="c"),)),
    thresholds=Thresholds(accuracy=None),
    checks="all",
    created="2026-11-23T12:00:00+00:00",
    figures={"accuracy": 0.98},
    mistakes=({"row": 1},),
    serving_signature={"name": "serving_default"},
    extra_checks=({"name": "has_words", "digest": "d1"},),
    require_comparison=False,
)


def test_a_report_survives_json() -> None:
    assert Report.from_json(json.loads(json.dumps(REPORT.to_json()))) == REPORT
    assert REPORT.accuracy == 0.98


def test_a_later_writers_fields_are_left_alone() -> None:
    assert Report.from_json({**REPORT.to_json(), "cost": 3}) == REPORT


@pytest.mark.parametrize("changes", [{"format": 2}, {"verdict": {}}, {"thresholds": {"accuracy": 9}}])
def test_what_is_no_report_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MlengineError):
        Report.from_json({**REPORT.to_json(), **changes})
    with pytest.raises(MlengineError, match="not a report"):
        Report.from_json({"format": 1})


def test_predictions_survive_their_packing() -> None:
    kept = Predictions("digits", (7, 2, 9), (7, 65535, 0))
    assert Predictions.from_bytes(kept.to_bytes()) == kept


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"heldout": "x", "labels": "AAA=", "classes": "!"}'])
def test_what_are_no_predictions_is_refused(data: bytes) -> None:
    with pytest.raises(MlengineError, match="not predictions"):
        Predictions.from_bytes(data)


def test_a_job_is_known_by_its_dir() -> None:
    uri = "gs://bucket/mnist/j"
    assert job_dir_of(uri + "/").uri == job_dir_of({"job_dir": uri, "state": "SUCCEEDED"}).uri == uri
    for wrong in ("j", "gs://bucket", {"job_id": "j"}, None, 3):
        with pytest.raises(ModelError, match="not a job"):
            job_dir_of(wrong)
