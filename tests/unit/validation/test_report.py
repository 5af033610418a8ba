"""Reports and predictions: serialisation, and invalid data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlengine.core.errors import MlengineError, ModelError
from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Check, Decision, Verdict
from mlengine.validation.job import job_dir_of
from mlengine.validation.report import Report

REPORT = Report(
    model="mnist",
    job_id="j",
    job_dir="gs://bucket/mnist/j",
    model_uri="gs://bucket/mnist/j/model",
    verdict=Verdict(Decision.FIRST, ("fine",), (Check("a", 0.5, "b", passed=True, message="c"),)),
    thresholds=Thresholds.from_json(
        {"roc_auc": {"min": 0.8, "max_regression": "2%"}, "slices": {"by": ["a"], "metric": "f1"}}
    ),
    checks="all",
    created="2026-11-23T12:00:00+00:00",
    task="binary",
    metrics={"roc_auc": 0.98, "f1": None},
    undefined={"f1": "no row is predicted"},
    main_metric="roc_auc",
    worst_rows=({"row": 1},),
    serving_signature={"name": "serving_default"},
    extra_checks=({"name": "has_words", "digest": "d1"},),
    require_comparison=False,
)


def test_a_report_survives_json() -> None:
    assert Report.from_json(json.loads(json.dumps(REPORT.to_json()))) == REPORT
    assert REPORT.metric_value == 0.98


def test_unknown_fields_are_ignored() -> None:
    assert Report.from_json({**REPORT.to_json(), "cost": 3}) == REPORT


@pytest.mark.parametrize("changes", [{"format": 2}, {"verdict": {}}, {"figures": []}, {"thresholds": {"acuracy": 9}}])
def test_an_invalid_report_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MlengineError):
        Report.from_json({**REPORT.to_json(), **changes})
    with pytest.raises(MlengineError, match="invalid report"):
        Report.from_json({"format": 1})


def test_the_job_directory_of_a_job_is_found() -> None:
    uri = "gs://bucket/mnist/j"
    assert job_dir_of(uri + "/").uri == job_dir_of({"job_dir": uri, "state": "SUCCEEDED"}).uri == uri
    for wrong in ("j", "gs://bucket", {"job_id": "j"}, None, 3):
        with pytest.raises(ModelError, match="not a job"):
            job_dir_of(wrong)
