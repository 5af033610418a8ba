"""Thresholds from a DAG, a form and a command line, and errors in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlengine.core.errors import MlengineError
from mlengine.core.thresholds import MetricThreshold, SliceThreshold, Thresholds, WhenUndecided


def test_all_forms_of_thresholds_are_read() -> None:
    read = Thresholds.from_json(
        {
            "roc_auc": {"min": "0.80", "max_regression": 0.005},
            "log_loss": {"max": 0.45},
            "mean_absolute_error": {"max_regression": "2.5 %"},
            "recall@precision=0.9": 0.4,
            "metrics.churn:profit": {"min": 1000},
            "slices": {"by": ["carrier", "origin"], "metric": "roc_auc", "min": 0.7, "min_rows": "200"},
            "latency_ms": 20,
            "size_bytes": "1e6",
            "size_ratio": "",
            "undecided": "accept",
        }
    )
    assert read.metrics == {
        "roc_auc": MetricThreshold(min=0.8, max_regression=0.005),
        "log_loss": MetricThreshold(max=0.45),
        "mean_absolute_error": MetricThreshold(max_regression=0.025, relative=True),
        "recall@precision=0.9": MetricThreshold(min=0.4),
        "metrics.churn:profit": MetricThreshold(min=1000),
    }
    assert read.slices == (SliceThreshold(("carrier", "origin"), "roc_auc", min=0.7, min_rows=200),)
    assert (read.latency_ms, read.size_bytes, read.size_ratio) == (20, 1_000_000, None)
    assert read.undecided is WhenUndecided.ACCEPT
    assert Thresholds.from_json(json.loads(json.dumps(read.to_json()))) == read


def test_a_bare_number_is_a_maximum_if_lower_is_better() -> None:
    read = Thresholds.from_json({"accuracy": "0.9", "log_loss": "0.4"})
    assert read.metrics == {"accuracy": MetricThreshold(min=0.9), "log_loss": MetricThreshold(max=0.4)}


@pytest.mark.parametrize("empty", [None, "", "None", "null", {"min": ""}, {}])
def test_an_empty_value_disables_a_threshold(empty: Any) -> None:
    assert Thresholds.from_json({"accuracy": empty}) == Thresholds() == Thresholds.from_json(None)


@pytest.mark.parametrize("empty", [None, "", "None"])
@pytest.mark.parametrize("name", ["slices", "confidence", "undecided", "latency_ms"])
def test_an_empty_field_of_the_form_is_the_default(name: str, empty: str | None) -> None:
    assert Thresholds.from_json({name: empty}) == Thresholds.from_json({})


def test_several_slices_and_a_single_column_are_read() -> None:
    read = Thresholds.from_json({"slices": [{"by": "carrier", "metric": "f1", "min": 0.5}] * 2})
    assert read.slices == (SliceThreshold(("carrier",), "f1", min=0.5),) * 2


@pytest.mark.parametrize(
    ("task", "metric", "expected"),
    [
        ("binary", "roc_auc", MetricThreshold(max_regression=0.005)),
        ("multiclass", "accuracy", MetricThreshold(max_regression=0.005)),
        ("regression", "mean_absolute_error", MetricThreshold(max_regression=0.01, relative=True)),
    ],
)
def test_the_main_metric_is_compared_if_none_is_named(task: str, metric: str, expected: MetricThreshold) -> None:
    assert Thresholds().for_task(task) == {metric: expected}
    assert Thresholds().main_metric(task) == metric


def test_a_minimum_of_the_main_metric_keeps_its_comparison() -> None:
    read = Thresholds.from_json({"roc_auc": 0.8, "f1": 0.5})
    assert read.for_task("binary")["roc_auc"] == MetricThreshold(min=0.8, max_regression=0.005)
    other = Thresholds.from_json({"roc_auc": 0.8, "f1": {"max_regression": 0.01}})
    assert other.for_task("binary")["roc_auc"] == MetricThreshold(min=0.8)
    assert other.main_metric("binary") == "f1"
    assert Thresholds().for_task("none") == {}


@pytest.mark.parametrize("nothing", [None, "", "None"])
def test_an_explicitly_empty_regression_disables_the_comparison(nothing: Any) -> None:
    """A form submits an empty value if the field is cleared."""
    read = Thresholds.from_json({"roc_auc": {"min": 0.8, "max_regression": nothing}})
    assert all(item.max_regression is None for item in read.for_task("binary").values())
    assert read.main_metric("binary") == ""
    assert Thresholds.from_json(json.loads(json.dumps(read.to_json()))) == read
    other = Thresholds.from_json({"f1": {"max_regression": nothing}})
    assert other.for_task("binary")["roc_auc"].max_regression == 0.005


def test_a_relative_regression_is_relative_to_the_champions_value() -> None:
    assert MetricThreshold(max_regression=0.02, relative=True).tolerance(-5.0) == pytest.approx(0.1)
    assert MetricThreshold(max_regression=0.02).tolerance(-5.0) == 0.02
    assert MetricThreshold().tolerance(1.0) == 0


def test_thresholds_of_version_0_1_are_read() -> None:
    read = Thresholds.from_report({"accuracy": 0.97, "per_class": 0.9, "tolerance": 0.005, "confidence": 0.95})
    assert read.metrics == {
        "accuracy": MetricThreshold(min=0.97, max_regression=0.005),
        "worst_class_recall": MetricThreshold(min=0.9),
    }
    disabled = Thresholds.from_report({"accuracy": None, "per_class": None, "tolerance": None})
    assert disabled.metrics == {"accuracy": MetricThreshold(compared=False)}


@pytest.mark.parametrize(
    ("data", "words", "hint"),
    [
        ({"acuracy": 0.9}, "unknown metric or threshold: acuracy", "did you mean accuracy"),
        ({"neg_log_loss": -0.4}, "unknown metric or threshold: neg_log_loss", "did you mean log_loss"),
        ({"recall@precison=0.9": 0.4}, "unknown metric or threshold: recall@precison=0.9", "did you mean recall"),
        ({"recall@precision=high": 0.4}, "'recall@precision=high' has no number", "recall@precision=…"),
        ({"recall@precision=9": 0.4}, "'recall@precision=9': precision is out of range", "from 0 to 1"),
        ({"recall@precision=nan": 0.4}, "precision is out of range", "from 0 to 1"),
        ({"top_k_accuracy@k=2.5": 0.4}, "k is out of range", "an integer from 1 on"),
        ({"fbeta@beta=0": 0.4}, "beta is out of range", "above 0"),
        ({"mean_pinball_loss@quantile=1": 0.4}, "quantile is out of range", "between 0 and 1"),
        ({"neg_rmse": 1}, "unknown metric or threshold: neg_rmse", "did you mean root_mean_squared_error?"),
        ({"AUC": 1}, "unknown metric or threshold: AUC", "did you mean roc_auc?"),
        ({"precison": 1}, "unknown metric or threshold: precison", "did you mean precision?"),
        ({"accuracy": "nan"}, "accuracy is not a number: 'nan'", "write accuracy: 0.97"),
        ({"accuracy": "high"}, "accuracy is not a number: 'high'", ""),
        ({"accuracy": True}, "accuracy is not a number: True", ""),
        ({"accuracy": {"minimum": 0.9}}, "threshold accuracy has minimum", '"min"'),
        ({"accuracy": {"min": 0.9, "max": 0.8}}, "min 0.9 is above max 0.8", "exchange"),
        ({"accuracy": {"max_regression": -0.1}}, "accuracy.max_regression is negative: -0.1", "0 or more"),
        ({"accuracy": {"max_regression": "two %"}}, "accuracy.max_regression is not a number: 'two '", ""),
        ({"slices": "carrier"}, "threshold slices is 'carrier'", '"by"'),
        ({"slices": {"by": ["carrier"]}}, "threshold slices has", "by and metric are needed"),
        ({"slices": {"by": 5, "metric": "f1"}}, "threshold slices.by is 5", '"by"'),
        ({"slices": {"by": "c", "metric": "f1", "min_rows": 0}}, "slices.min_rows is 0", "1 or more"),
        ({"slices": {"by": "c", "metric": "f1", "min_rows": -5}}, "slices.min_rows is -5", "1 or more"),
        ({"slices": {"by": ["carrier"], "metric": "auc"}}, "unknown metric or threshold: auc", ""),
        ({"slices": {"by": ["c"], "metric": "f1", "floor": 1}}, "threshold slices has", "min_rows"),
        ({"confidence": 0.5}, "confidence=0.5", "between 0.5 and 1"),
        ({"latency_ms": -1}, "latency_ms is negative: -1", "0 or more"),
        ({"undecided": "maybe"}, "undecided='maybe'", "reject or accept"),
    ],
)
def test_an_invalid_threshold_is_refused_with_its_name(data: dict[str, Any], words: str, hint: str) -> None:
    with pytest.raises(MlengineError) as raised:
        Thresholds.from_json(data)
    assert words in raised.value.message
    assert hint in str(raised.value.hint)


def test_an_error_for_a_metric_of_another_task_lists_valid_ones() -> None:
    with pytest.raises(MlengineError, match="'roc_auc' is of binary, and the task is regression") as raised:
        Thresholds.from_json({"roc_auc": 0.8}).for_task("regression")
    assert "mean_absolute_error" in str(raised.value.hint)


def test_slices_can_be_given_as_json() -> None:
    """The option is --threshold 'slices={…}'."""
    given = {"by": ["carrier"], "metric": "roc_auc", "min": 0.5}
    assert Thresholds.from_json({"slices": json.dumps(given)}) == Thresholds.from_json({"slices": given})
