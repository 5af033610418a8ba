"""Metric names: their tasks, directions and parameters."""

from __future__ import annotations

import pytest

from mlengine.core.errors import MlengineError
from mlengine.core.metrics import (
    MAIN_METRIC,
    METRICS,
    format_difference,
    format_value,
    info,
    is_user_metric,
    names_of,
    split_name,
)


def test_each_task_has_its_main_metric() -> None:
    for task, name in MAIN_METRIC.items():
        assert task in info(name, task).tasks
        assert name in names_of(task)


def test_error_metrics_are_better_when_lower() -> None:
    assert not info("log_loss").higher_is_better
    assert not info("mean_absolute_error").higher_is_better
    assert info("r2").higher_is_better
    assert all("error" in name or "loss" in name or "brier" in name or "deviance" in name
               for name, item in METRICS.items() if not item.higher_is_better)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("roc_auc", ("roc_auc", None)),
        ("recall@precision=0.9", ("recall@precision", 0.9)),
        ("top_k_accuracy@k=5", ("top_k_accuracy@k", 5.0)),
    ],
)
def test_metric_names_with_and_without_a_parameter_are_read(name: str, parts: tuple[str, float | None]) -> None:
    assert split_name(name) == parts


@pytest.mark.parametrize("name", ["", "top_k_accuracy", "f1@beta=2", "roc_auc@k=1", "mlflow"])
def test_an_unknown_metric_is_an_error(name: str) -> None:
    with pytest.raises(MlengineError, match="unknown metric or threshold") as raised:
        info(name)
    assert raised.value.hint


def test_custom_metric_functions_are_recognised() -> None:
    assert is_user_metric("my.metrics:profit")
    assert not is_user_metric("profit")
    assert not is_user_metric("my.metrics:")
    assert info("my.metrics:profit", "regression").higher_is_better


def test_zero_has_no_minus_sign() -> None:
    assert (format_value(-0.0), format_difference(-0.0), format_difference(0.0)) == ("0", "+0", "+0")
    assert (format_difference(-0.00125), format_difference(12345.6)) == ("-0.00125", "+12,346")
