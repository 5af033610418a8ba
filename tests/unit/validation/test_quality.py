"""Measurements and thresholds: result and message of each check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Check
from mlengine.validation.measured import Measured
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.metrics.registry import Value, compute_all
from mlengine.validation.metrics.slices import slices
from mlengine.validation.outputs import Fitted
from mlengine.validation.quality import metric_checks, output_checks, run_checks, slice_checks

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
    """Rows of two alternating classes, of which the rows in ``correct`` are predicted correctly."""
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


def test_a_missing_key_skips_its_check_and_a_high_latency_fails() -> None:
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
def test_a_metric_is_checked_against_its_threshold(
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
    assert good.message == "All slices with at least 5 rows pass (2 slices)."
    none = slice_check({"metric": "accuracy", "min": 0.9, "min_rows": 50}, carriers, classes(22, range(22)))
    assert none.skipped
    assert none.message == "No slice has 50 rows and a defined accuracy."


def test_a_metric_that_is_undefined_on_a_slice_is_named() -> None:
    target = np.array([0, 1] * 5 + [0] * 10)
    outcomes = Outcomes("binary", target, np.where(target == 1, 0.9, 0.1), target, None, 2)
    check = slice_check({"metric": "roc_auc", "min": 0.9, "min_rows": 5}, ["UA"] * 10 + ["AA"] * 10, outcomes)
    assert check.passed
    assert "All slices with at least 5 rows pass (1 slice). Undefined in 1 (carrier=AA: " in check.message
    assert compute_all(["roc_auc"], outcomes)["roc_auc"].number == 1.0
