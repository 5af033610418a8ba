"""Every metric, compared with scikit-learn on random rows with ties, weights and missing classes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mlengine.core.metrics import METRICS
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.metrics.registry import compute

Reference = Callable[[Outcomes, Any], float]


def _labels(function: Any, **arguments: Any) -> Reference:
    return lambda one, weight: function(one.target, one.predicted, sample_weight=weight, **arguments)


def _values(function: Any, **arguments: Any) -> Reference:
    return lambda one, weight: function(one.target, one.values, sample_weight=weight, **arguments)


def _average(function: Any, average: str) -> Reference:
    return _labels(function, average=average, zero_division=0.0)


def _chosen(function: Any, threshold: float = 0.5, **arguments: Any) -> Reference:
    return lambda one, weight: function(
        one.target, one.need_values() >= threshold, sample_weight=weight, zero_division=np.nan, **arguments
    )


def _log_loss(one: Outcomes, weight: Any) -> float:
    return float(sk.log_loss(one.target, one.values, sample_weight=weight, labels=np.arange(one.class_count)))


def _roc_auc_ovr(one: Outcomes, weight: Any) -> float:
    values: Any = one.values
    areas = [sk.roc_auc_score(one.target == at, values[:, at], sample_weight=weight) for at in range(one.class_count)]
    return float(np.mean(areas))


def _roc_auc_ovo(one: Outcomes, weight: Any) -> float:
    """The metric of scikit-learn, which has no weights, so rows are repeated instead."""
    times = np.ones(one.rows, int) if weight is None else (2 * weight).astype(int)
    target, values = (np.repeat(part, times, axis=0) for part in (one.target, np.asarray(one.values)))
    return float(sk.roc_auc_score(target, values, multi_class="ovo", labels=np.arange(one.class_count)))


def _brier_score(one: Outcomes, weight: Any) -> float:
    return float(sk.brier_score_loss(one.target, one.values, sample_weight=weight, labels=np.arange(one.class_count)))


def _top_k(one: Outcomes, weight: Any) -> float:
    return float(
        sk.top_k_accuracy_score(one.target, one.values, k=2, sample_weight=weight, labels=np.arange(one.class_count))
    )


def _curve(one: Outcomes, weight: Any, *, precision: float = 0.0, recall: float = 0.0) -> float:
    """The largest recall at a precision, or the largest precision at a recall."""
    precisions, recalls, _ = sk.precision_recall_curve(one.target, one.values, sample_weight=weight)
    precisions, recalls = precisions[:-1], recalls[:-1]  # the last point has no threshold
    if precision:
        return float(max(recalls[precisions >= precision], default=0.0))
    return float(precisions[recalls >= recall].max())


def _worst_recall(one: Outcomes, weight: Any) -> float:
    present = np.unique(one.target)
    return float(sk.recall_score(one.target, one.predicted, labels=present, average=None, sample_weight=weight).min())


def _calibration(one: Outcomes, weight: Any) -> float:
    values: Any = one.values
    hit: Any = one.target
    if one.task == "multiclass":
        hit, values = one.predicted == one.target, values.max(axis=1)
    weight = np.ones(one.rows) if weight is None else weight
    place = np.minimum((values * 10).astype(int), 9)
    total = 0.0
    for at in np.unique(place):
        rows = place == at
        gap = np.average(values[rows], weights=weight[rows]) - np.average(hit[rows], weights=weight[rows])
        total += abs(gap) * weight[rows].sum() / weight.sum()
    return total


REFERENCE: dict[str, Reference] = {
    "accuracy": _labels(sk.accuracy_score),
    "balanced_accuracy": _labels(sk.balanced_accuracy_score),
    "matthews_corrcoef": _labels(sk.matthews_corrcoef),
    "cohen_kappa": _labels(sk.cohen_kappa_score),
    "worst_class_recall": _worst_recall,
    "log_loss": _log_loss,
    "brier_score": _brier_score,
    "expected_calibration_error": _calibration,
    "roc_auc": _values(sk.roc_auc_score),
    "average_precision": _values(sk.average_precision_score),
    "roc_auc_ovr": _roc_auc_ovr,
    "roc_auc_ovo": _roc_auc_ovo,
    "top_k_accuracy@k=2": _top_k,
    "precision": _chosen(sk.precision_score),
    "recall": _chosen(sk.recall_score),
    "f1": _chosen(sk.f1_score),
    "fbeta@beta=2": _chosen(sk.fbeta_score, beta=2),
    "precision@threshold=0.3": _chosen(sk.precision_score, 0.3),
    "recall@threshold=0.3": _chosen(sk.recall_score, 0.3),
    "f1@threshold=0.3": _chosen(sk.f1_score, 0.3),
    "recall@precision=0.6": lambda one, weight: _curve(one, weight, precision=0.6),
    "precision@recall=0.6": lambda one, weight: _curve(one, weight, recall=0.6),
    "mean_absolute_error": _values(sk.mean_absolute_error),
    "mean_squared_error": _values(sk.mean_squared_error),
    "root_mean_squared_error": _values(sk.root_mean_squared_error),
    "mean_absolute_percentage_error": _values(sk.mean_absolute_percentage_error),
    "mean_poisson_deviance": _values(sk.mean_poisson_deviance),
    "mean_gamma_deviance": _values(sk.mean_gamma_deviance),
    "mean_pinball_loss@quantile=0.8": _values(sk.mean_pinball_loss, alpha=0.8),
    "max_error": lambda one, _weight: float(sk.max_error(one.target, one.values)),
    "r2": _values(sk.r2_score),
    "median_absolute_error": lambda one, _weight: float(sk.median_absolute_error(one.target, one.values)),
}
REFERENCE |= {
    f"{kind}_{average}": _average(function, average)
    for kind, function in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score))
    for average in ("macro", "micro", "weighted")
}


def outcomes(task: str, rows: int, seed: int, *, weighted: bool, coarse: bool, present: int) -> Outcomes:
    """Random rows.

    :param coarse: use few distinct probabilities, so that many rows tie.
    :param present: the number of classes that have rows; the dataset has 4 classes, or 2.
    """
    random = np.random.default_rng(seed)
    weight = random.choice([0.5, 1.0, 2.0], rows) if weighted else None
    if task == "regression":
        amounts = random.gamma(2.0, 1000.0, rows).round(1 if not coarse else -3)
        return Outcomes(task, amounts, amounts + random.normal(50_000, 500, rows).round(), None, weight)
    classes = 2 if task == "binary" else 4
    target = random.integers(0, min(present, classes), rows)
    if task == "binary":
        values = random.random(rows).round(1 if coarse else 6)
        return Outcomes(task, target, values, (values >= 0.5).astype(int), weight, 2)
    scores = random.integers(1, 4 if coarse else 10_000, (rows, classes)).astype(float)
    values = scores / scores.sum(axis=1, keepdims=True)
    return Outcomes(task, target, values, values.argmax(axis=1), weight, classes)


def test_each_metric_is_compared_with_scikit_learn() -> None:
    names = {f"{name.partition('=')[0]}" for name in REFERENCE}
    assert names == METRICS.keys()


@pytest.mark.parametrize(("name", "task"), [(name, task) for name in REFERENCE
                                            for task in METRICS[name.partition("=")[0]].tasks])  # fmt: skip
@given(
    rows=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
    weighted=st.booleans(),
    coarse=st.booleans(),
    present=st.integers(1, 4),
)
@settings(max_examples=10, deadline=None)
def test_the_value_equals_scikit_learns(
    name: str, task: str, rows: int, seed: int, weighted: bool, coarse: bool, present: int
) -> None:
    weighted = weighted and name not in {"median_absolute_error"}  # scikit-learn defines it differently with weights
    one = outcomes(task, rows, seed, weighted=weighted, coarse=coarse, present=present)
    value = compute(name, one)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = REFERENCE[name](one, one.weight)
        except ValueError:
            expected = math.nan
    if value.number is None:
        assert value.undefined
        assert math.isnan(expected) or undefined_here(name, one)
    else:
        assert value.number == pytest.approx(expected, rel=1e-9, abs=1e-9)


def undefined_here(name: str, one: Outcomes) -> bool:
    """Whether the metric is undefined here, although scikit-learn returns a number, often with a warning."""
    present = np.unique(one.target)
    if name in {"average_precision", "recall@precision=0.6", "precision@recall=0.6"}:
        return 1 not in present
    if name == "roc_auc_ovr":
        return len(present) < one.class_count
    return name in {"roc_auc", "roc_auc_ovo", "r2"} and len(present) < 2


@pytest.mark.parametrize(
    ("name", "one", "words"),
    [
        ("roc_auc", Outcomes("binary", np.array([1, 1]), np.array([0.5, 0.6])), "all 2 rows are of one class"),
        ("precision", Outcomes("binary", np.array([1, 0]), np.array([0.1, 0.2])), "no row is predicted positive"),
        ("accuracy", Outcomes("binary", np.array([], int), np.array([]), np.array([], int)), "there are no rows"),
        ("log_loss", Outcomes("binary", np.array([1, 0]), np.array([0.1, np.nan])), "not finite"),
        ("log_loss", Outcomes("multiclass", np.array([1]), None, np.array([1])), "needs probabilities"),
        ("average_precision", Outcomes("binary", np.array([0]), np.array([0.5])), "none of the 1 rows is of the pos"),
        ("roc_auc_ovo", Outcomes("multiclass", np.arange(101), np.ones((101, 101)), None, None, 101), "each pair of"),
        ("accuracy", Outcomes("binary", np.array([1]), None, np.array([1]), np.zeros(1)), "weights of all rows are 0"),
        ("mean_gamma_deviance", Outcomes("regression", np.zeros(1), np.ones(1)), "positive predictions and targets"),
        ("roc_auc_ovr", Outcomes("multiclass", np.array([0, 0]), np.ones((2, 2)) / 2, None, None, 2), "class number 0"),
        ("r2", Outcomes("regression", np.array([3.0, 3.0]), np.array([1.0, 2.0])), "all targets are equal"),
        ("mean_poisson_deviance", Outcomes("regression", np.array([3.0]), np.array([-1.0])), "positive predictions"),
    ],
)
def test_an_undefined_metric_has_a_reason(name: str, one: Outcomes, words: str) -> None:
    value = compute(name, one)
    assert value.number is None
    assert words in value.undefined


def test_one_class_among_weights_has_no_correlation() -> None:
    """Rounding errors and a division by almost 0 must not result in a correlation."""
    weight = np.random.default_rng(3).random(300)
    one = Outcomes("binary", np.zeros(300, int), None, np.arange(300) % 2, weight, 2)
    assert compute("matthews_corrcoef", one).number == 0
    same = replace(one, predicted=np.zeros(300, int))
    assert compute("cohen_kappa", same).undefined == "the rows do not determine it"


def test_a_row_without_a_prediction_is_wrong_in_each_metric_of_classes() -> None:
    one = Outcomes("multiclass", np.array([0, 1, 1, 0]), None, np.array([0, 1, -1, 0]), None, 2)
    assert compute("accuracy", one).number == 0.75
    assert compute("worst_class_recall", one).number == 0.5
    assert compute("precision_macro", one).number == 1.0


def test_the_median_is_weighted() -> None:
    target, error = np.zeros(4), np.array([1.0, 2.0, 3.0, 10.0])
    weight = np.array([1.0, 1.0, 1.0, 5.0])
    assert compute("median_absolute_error", Outcomes("regression", target, error, None, weight)).number == 10
    repeated = Outcomes("regression", np.zeros(8), np.repeat(error, weight.astype(int)))
    assert compute("median_absolute_error", repeated).number == 10


def profit(target: Any, prediction: Any, weight: Any) -> float:
    return float(((prediction >= 0.5) * np.where(target == 1, 100.0, -40.0)) @ weight)


def raises(target: Any, prediction: Any, weight: Any) -> float:
    raise KeyError("no price")


def test_a_custom_metric_function_is_called() -> None:
    one = Outcomes("binary", np.array([1, 0, 1]), np.array([0.9, 0.8, 0.1]), None, np.array([2.0, 1.0, 1.0]))
    assert compute(f"{__name__}:profit", one).number == 160
    assert compute(f"{__name__}:raises", one).undefined == "it raised KeyError: 'no price'"
