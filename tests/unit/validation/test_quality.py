"""Measurements and thresholds: result and message of each check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import NOT_WORSE, Check
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.metrics.registry import Value, compute_all
from mlengine.validation.metrics.slices import slices
from mlengine.validation.outputs import Fitted
from mlengine.validation.quality import (
    Baseline,
    compare,
    compare_outcomes,
    metric_checks,
    output_checks,
    run_checks,
    slice_checks,
)
from mlengine.validation.runner import Measured

FIGURES: dict[str, Any] = {
    "keys": {"sent": 10, "wrong": []},
    "batch_difference": 1e-7,
    "largest": 1.0,
    "latency_ms": 2.0,
}


def run(thresholds: Thresholds | None = None, **changes: Any) -> dict[str, Check]:
    checks = run_checks(Measured(figures={**FIGURES, **changes}), thresholds or Thresholds())
    return {check.name: check for check in checks}


def classes(rows: int, correct: range, *, weight: Any = None) -> Outcomes:
    """Two classes in turn; the rows of ``correct`` are predicted correctly."""
    target = np.arange(rows) % 2
    right = np.isin(np.arange(rows), np.array(correct))
    predicted = np.where(right, target, 1 - target)
    return Outcomes("multiclass", target, None, predicted, weight, 2)


def test_good_measurements_pass_every_check() -> None:
    assert all(check.passed for check in run().values())
    assert [name for name, check in run().items() if check.skipped] == ["latency"]


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("keys returned", {"keys": {"sent": 10, "wrong": ["-5"]}}, "does not return the keys that were sent: -5"),
        ("batch independence", {"batch_difference": 0.01}, "they differ by 0.01, and the largest is 1"),
    ],
)
def test_each_bad_measurement_fails_its_check(name: str, changes: dict[str, Any], words: str) -> None:
    checks = run(**changes)
    assert [check.name for check in checks.values() if not check.passed] == [name]
    assert words in checks[name].message


@pytest.mark.parametrize(
    ("gap", "largest", "passed"),
    [(2e-4, 1.0, False), (2e-4, 50.0, True), (0.03, 400_000.0, True), (0.1, 50.0, False), (0.0, 0.0, True)],
)
def test_rounding_between_batches_is_relative_to_the_outputs(gap: float, largest: float, passed: bool) -> None:
    assert run(batch_difference=gap, largest=largest)["batch independence"].passed is passed


def test_outputs_that_are_not_finite_have_no_batch_check() -> None:
    check = run(batch_difference="nan", largest="nan")["batch independence"]
    assert check.skipped
    (_, finite) = output_checks(Fitted(np.array([0.5, np.nan]), None, 1), 2, "binary")
    assert not finite.passed
    assert finite.message == "The predictions of 1 of 2 rows are not finite."


def test_a_model_without_a_key_and_a_slow_one() -> None:
    assert run(keys=None)["keys returned"].skipped
    assert run(Thresholds.from_json({"latency_ms": 2}))["latency"].passed
    slow = run(Thresholds.from_json({"latency_ms": 1.9}))["latency"]
    assert not slow.passed
    assert slow.message == "One row takes 2.00 ms; the maximum is 1.9 ms."


@pytest.mark.parametrize(
    ("name", "threshold", "number", "passed", "message"),
    [
        ("accuracy", 0.97, 0.97, True, "accuracy is 0.97; it must be ≥ 0.97."),
        ("accuracy", 0.97, 0.9699, False, "accuracy is 0.9699; it must be ≥ 0.97."),
        ("log_loss", 0.4, 0.5, False, "log_loss is 0.5 (lower is better); it must be ≤ 0.4."),
        ("r2", {"min": 0.1, "max": 0.9}, 0.95, False, "r2 is 0.95; it must be ≥ 0.1 and ≤ 0.9."),
        ("f1", 0.1, None, False, "f1 is undefined: one class only."),
    ],
)
def test_a_metric_and_its_threshold(
    name: str, threshold: Any, number: float | None, passed: bool, message: str
) -> None:
    value = Value(number, "" if number is not None else "one class only")
    (check,) = metric_checks({name: value}, Thresholds.from_json({name: threshold}).metrics)
    assert (check.passed, check.message, check.skipped) == (passed, message, False)


def test_a_metric_without_minimum_and_maximum_is_shown() -> None:
    thresholds = Thresholds.from_json({"accuracy": {"max_regression": 0.1}}).metrics
    (check,) = metric_checks({"accuracy": Value(0.5)}, thresholds)
    assert check.skipped
    assert check.message == "accuracy is 0.5; no minimum or maximum is set."
    (check,) = metric_checks({"accuracy": Value(None, "there are no rows")}, thresholds)
    assert check.message == "accuracy is undefined: there are no rows; no minimum or maximum is set."


def slice_check(threshold: dict[str, Any], carriers: list[str], outcomes: Outcomes) -> Check:
    read = Thresholds.from_json({"slices": {"by": "carrier", **threshold}}).slices[0]
    found = slices(outcomes, {"carrier": np.array(carriers, object)}, read.metric, read.min_rows)
    (check,) = slice_checks([(read, found)])
    return check


def test_slices_below_the_minimum_are_named() -> None:
    carriers = ["UA"] * 10 + ["AA"] * 10 + ["HA"] * 2
    check = slice_check({"metric": "accuracy", "min": 0.9, "min_rows": 5}, carriers, classes(22, range(10)))
    assert not check.passed
    assert check.name == "accuracy by carrier"
    assert check.value == 0
    assert check.message == "1 of 2 slices fail: accuracy for carrier=AA (10 rows) is 0; it must be ≥ 0.9."
    good = slice_check({"metric": "accuracy", "min": 0.9, "min_rows": 5}, carriers, classes(22, range(22)))
    assert good.message == "All 2 slices with at least 5 rows pass."
    none = slice_check({"metric": "accuracy", "min": 0.9, "min_rows": 50}, carriers, classes(22, range(22)))
    assert none.skipped
    assert none.message == "No slice has 50 rows and a defined accuracy."


def test_a_metric_that_is_undefined_on_a_slice_is_named() -> None:
    target = np.array([0, 1] * 5 + [0] * 10)
    outcomes = Outcomes("binary", target, np.where(target == 1, 0.9, 0.1), target, None, 2)
    check = slice_check({"metric": "roc_auc", "min": 0.9, "min_rows": 5}, ["UA"] * 10 + ["AA"] * 10, outcomes)
    assert check.passed
    assert "All 1 slices with at least 5 rows pass. Undefined in 1 (carrier=AA: " in check.message
    assert compute_all(["roc_auc"], outcomes)["roc_auc"].number == 1.0


@pytest.mark.parametrize(
    ("rows", "mine", "theirs", "passed", "words"),
    [
        (10_000, range(9_000), range(10, 9_010), True, "Not worse than the champion: accuracy is 0.9"),
        (10_000, range(9_000), range(9_200), False, "Worse than the champion: accuracy is 0.9, the champion's is 0.92"),
        (200, range(180), range(3, 183), False, "The held-out set is too small to decide"),
    ],
)
def test_the_accuracy_is_compared_by_the_exact_test(
    rows: int, mine: range, theirs: range, passed: bool, words: str
) -> None:
    baseline = Baseline("old", 1, classes(rows, theirs))
    (check,), differences = compare_outcomes(classes(rows, mine), baseline, Thresholds())
    assert check.passed is passed
    assert check.comparison
    assert check.name == f"{NOT_WORSE}: accuracy"
    assert words in check.message
    assert differences["accuracy"].gain == pytest.approx((len(mine) - len(theirs)) / rows)


def test_undecided_models_are_accepted_on_request() -> None:
    thresholds = Thresholds.from_json({"undecided": "accept"})
    (check,), _ = compare_outcomes(
        classes(200, range(180)), Baseline("old", 1, classes(200, range(3, 183))), thresholds
    )
    assert check.passed
    assert check.message.endswith("With undecided=accept, it is accepted.")


def test_weighted_rows_are_compared_by_the_bootstrap() -> None:
    weight = np.where(np.arange(1000) < 900, 1e-9, 1.0)  # only the last 100 rows count
    mine, theirs = (classes(1000, correct, weight=weight) for correct in (range(900), range(900, 1000)))
    (check,), differences = compare_outcomes(mine, Baseline("old", 1, theirs), Thresholds())
    assert not check.passed
    assert differences["accuracy"].gain == pytest.approx(-1.0, abs=1e-6)
    assert differences["accuracy"].resamples == 1000


def test_a_relative_regression_of_an_error() -> None:
    target = np.linspace(100_000, 900_000, 400)
    mine, theirs = (Outcomes("regression", target, target + error) for error in (1010.0, 1000.0))
    (check,), _ = compare_outcomes(mine, Baseline("old", 1, theirs), Thresholds())
    assert check.passed
    assert "it may be worse by 10" in check.message
    (check,), _ = compare_outcomes(
        mine, Baseline("old", 1, theirs), Thresholds.from_json({"mean_absolute_error": {"max_regression": "0.5%"}})
    )
    assert not check.passed
    assert "Worse than the champion" in check.message


def test_a_metric_that_cannot_be_compared_is_skipped() -> None:
    only_classes = Outcomes("multiclass", np.array([0, 1]), None, np.array([0, 1]), None, 2)
    thresholds = Thresholds.from_json({"log_loss": {"max_regression": 0.1}})
    (check,), _ = compare_outcomes(only_classes, Baseline("old", 1, only_classes), thresholds)
    assert check.skipped
    assert "only the predicted classes are known" in check.message


def test_a_champion_without_predictions_is_not_compared() -> None:
    (check,), _ = compare_outcomes(classes(10, range(10)), Baseline("old", 1, None, "It was not run."), Thresholds())
    assert check.skipped
    assert check.message == "It was not run."


def test_latency_and_size_are_compared_with_the_champion() -> None:
    outcomes = classes(1000, range(1000))
    measured = Measured(figures=FIGURES, baseline={"latency_ms": 1.0, "challenger_latency_ms": 3.5})
    comparison = compare(outcomes, measured, 400, Baseline("old", 100, outcomes), Thresholds())
    results = {check.name: check.passed for check in comparison.checks}
    assert results == {f"{NOT_WORSE}: accuracy": True, "latency ratio": False, "size ratio": False}
    assert "3.50 times the champion's 1.00 ms" in comparison.checks[1].message
    assert "4.00 times" in comparison.checks[2].message


def test_a_model_that_failed_is_not_compared() -> None:
    measured = Measured(error="The model was killed after 8 s at keys.")
    (check,) = run_checks(measured, Thresholds())
    assert not check.passed
    comparison = compare(None, measured, 1, Baseline("old", 1, classes(10, range(10))), Thresholds())
    assert comparison.differences == {}
    assert [check.name for check in comparison.checks if check.skipped] == [NOT_WORSE, "latency ratio"]


def test_the_size_of_a_model_that_is_not_run_is_compared() -> None:
    why = "The model is not run with validation_level='files'."
    checks = compare(None, Measured(), 400, Baseline("old", 100), Thresholds(), not_run=why).checks
    assert [(check.name, check.skipped, check.passed) for check in checks] == [
        (NOT_WORSE, True, True),
        ("latency ratio", True, True),
        ("size ratio", False, False),
    ]
    assert checks[0].message == why


def test_the_first_model_is_not_compared() -> None:
    checks = compare(classes(10, range(10)), Measured(), 1, None, Thresholds()).checks
    assert all(check.skipped and check.message == "There is no champion to compare with." for check in checks)
