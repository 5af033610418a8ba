"""Data for plots: correct, and small for any number of rows and classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import auc, confusion_matrix

from mlengine.validation.metrics.curves import CELLS, curves
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.metrics.registry import compute


def test_curves_of_a_binary_model() -> None:
    random = np.random.default_rng(1)
    target = random.integers(0, 2, 20_000)
    values = np.clip(target * 0.3 + random.random(20_000) * 0.7, 0, 1)
    one = Outcomes("binary", target, values, (values >= 0.5).astype(int), None, 2)
    found = curves(one)
    assert set(found) == {"roc", "precision_recall", "calibration", "thresholds"}
    area = auc([0, *found["roc"]["false_positive_rate"]], [0, *found["roc"]["recall"]])
    assert area == pytest.approx(compute("roc_auc", one).number, abs=0.005)
    row = next(row for row in found["thresholds"] if row["threshold"] == 0.5)
    assert row["precision"] == pytest.approx(compute("precision", one).number, abs=1e-6)
    assert row["recall"] == pytest.approx(compute("recall", one).number, abs=1e-6)
    assert sum(part["rows"] for part in found["calibration"]) == 20_000
    assert len(json.dumps(found)) < 20_000


def test_one_class_has_no_roc_curve() -> None:
    found = curves(Outcomes("binary", np.ones(5, int), np.linspace(0.1, 1, 5), None, None, 2))
    assert set(found) == {"calibration", "thresholds"}
    json.dumps(found, allow_nan=False)


def test_the_confusion_matrix_counts_predictions() -> None:
    random = np.random.default_rng(1)
    target, predicted = random.integers(0, 4, (2, 500))
    found = curves(Outcomes("multiclass", target, None, predicted, None, 4))["confusion"]
    assert found["rows"] == confusion_matrix(target, predicted).tolist()
    assert (found["classes"], found["others"]) == ([0, 1, 2, 3], False)


def test_rows_without_a_prediction_are_counted_as_others() -> None:
    one = Outcomes("multiclass", np.array([0, 1]), None, np.array([0, -1]), None, 2)
    assert curves(one)["confusion"] == {"classes": [0, 1], "others": True, "rows": [[1, 0, 0], [0, 0, 1], [0, 0, 0]]}


def test_the_confusion_matrix_of_two_million_classes_is_limited() -> None:
    random = np.random.default_rng(1)
    target = np.concatenate((np.repeat(np.arange(40), 100), random.integers(0, 2_000_000, 5000)))
    predicted = np.where(random.random(len(target)) < 0.5, target, 1_999_999)
    one = Outcomes("multiclass", target, None, predicted, None, 2_000_000)
    found = curves(one)["confusion"]
    assert found["others"]
    assert len(found["classes"]) == 30
    assert np.array(found["rows"]).shape == (31, 31)
    assert np.array(found["rows"]).sum() == 9000
    assert len(json.dumps(found)) < 20_000
    for name in ("accuracy", "f1_macro", "balanced_accuracy", "matthews_corrcoef", "worst_class_recall"):
        assert compute(name, one).number is not None


@pytest.mark.parametrize("values", [np.array([3.0, 3.0]), np.array([-1e9, 5.0]), np.array([0.0, 0.0])])
def test_histograms_of_a_regression(values: np.ndarray) -> None:
    found = curves(Outcomes("regression", np.array([3.0, 3.0]), values))
    assert sum(found["residuals"]["rows"]) == 2
    assert len(found["residuals"]["edges"]) == CELLS + 1
    assert np.array(found["predicted_by_actual"]["rows"]).sum() == 2
    json.dumps(found, allow_nan=False)


def test_predictions_that_are_not_finite_have_no_curves() -> None:
    assert curves(Outcomes("regression", np.array([1.0]), np.array([np.nan]))) == {}
