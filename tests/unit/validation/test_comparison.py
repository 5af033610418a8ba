"""The comparison with the champion: result and message of each check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import NOT_WORSE, Check, Decision, decide
from mlengine.validation.comparison import Baseline, compare, compare_outcomes
from mlengine.validation.measured import Measured
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.quality import run_checks


def classes(rows: int, correct: range, *, weight: Any = None) -> Outcomes:
    """Rows of two alternating classes, of which the rows in ``correct`` are predicted correctly."""
    target = np.arange(rows) % 2
    right = np.isin(np.arange(rows), np.array(correct))
    predicted = np.where(right, target, 1 - target)
    return Outcomes("multiclass", target, None, predicted, weight, 2)


@pytest.mark.parametrize(
    ("rows", "mine", "theirs", "passed", "words"),
    [
        (10_000, range(9_000), range(9_000), True, "Not worse than the champion: accuracy is 0.9"),
        (10_000, range(9_000), range(10, 9_010), True, "Not worse than the champion: accuracy is 0.9"),
        (10_000, range(9_000), range(90, 9_100), True, "Not worse than the champion: accuracy is 0.9"),
        (10_000, range(9_000), range(50, 9_150), False, "Worse than the champion: accuracy is 0.9"),
        (10_000, range(9_000), range(9_200), False, "Worse than the champion: accuracy is 0.9, the champion's is 0.92"),
        (200, range(180), range(3, 183), False, "The held-out set is too small to decide"),
        (200, range(180), range(1, 184), False, "The held-out set is too small to decide"),
    ],
)
def test_the_accuracy_is_compared_by_paired_counts(
    rows: int, mine: range, theirs: range, passed: bool, words: str
) -> None:
    baseline = Baseline("old", 1, classes(rows, theirs))
    (check,), differences = compare_outcomes(classes(rows, mine), baseline, Thresholds())
    assert check.passed is passed
    assert check.comparison
    assert check.name == f"{NOT_WORSE}: accuracy"
    assert words in check.message
    assert differences["accuracy"].gain == pytest.approx((len(mine) - len(theirs)) / rows)


def _share_passed(generator: np.random.Generator, worse_by: float, runs: int = 400) -> float:
    """The share of challengers, worse by ``worse_by``, that pass if both disagree on about 2 % of 10,000 rows."""
    rows = 10_000
    passed = 0
    for _ in range(runs):
        gained = min(generator.binomial(rows, 0.01 - worse_by / 2), 1000)
        lost = min(generator.binomial(rows, 0.01 + worse_by / 2), 1000)
        # Both classify 8,000 rows correctly, the challenger the rows before them, the champion the rows after them.
        mine, theirs = classes(rows, range(1000 - gained, 9000)), classes(rows, range(1000, 9000 + lost))
        (check,), _ = compare_outcomes(mine, Baseline("old", 1, theirs), Thresholds())
        passed += check.passed
    return passed / runs


def test_error_rates_are_as_documented() -> None:
    """docs/validation.md has a table of these rates."""
    generator = np.random.default_rng(7)
    assert _share_passed(generator, 0.0) > 0.93
    assert _share_passed(generator, 0.001) > 0.80
    assert _share_passed(generator, 0.005) < 0.09
    assert _share_passed(generator, 0.01) < 0.005


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


def test_a_relative_regression_of_an_error_metric_is_compared() -> None:
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
    measured = Measured(baseline={"latency_ms": 1.0, "challenger_latency_ms": 3.5})
    comparison = compare(outcomes, measured, 400, Baseline("old", 100, outcomes), Thresholds())
    results = {check.name: check.passed for check in comparison.checks}
    assert results == {f"{NOT_WORSE}: accuracy": True, "latency ratio": False, "size ratio": False}
    assert "3.50 times the champion's 1.00 ms" in comparison.checks[1].message
    assert "4.00 times" in comparison.checks[2].message


def test_a_failed_model_is_not_compared() -> None:
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
    assert [(check.skipped, check.message) for check in checks] == [
        (True, "There is no champion. Metrics cannot be compared."),
        (True, "There is no champion. The latency cannot be compared."),
        (True, "There is no champion. The size cannot be compared."),
    ]


def test_of_two_metrics_the_one_that_cannot_be_compared_is_named_and_the_other_compared() -> None:
    target = np.arange(200) % 2
    values = np.where(target == 1, 0.9, 0.1)
    whole = Outcomes("binary", target, values, target, None, 2)
    only_classes = Outcomes("binary", target, None, target, None, 2)
    only_values = Outcomes("binary", target, values, None, None, 2)
    thresholds = Thresholds.from_json({"roc_auc": {"max_regression": 0.1}, "accuracy": {"max_regression": 0.1}})
    for mine, theirs, missing, other in (
        (whole, only_classes, "roc_auc", "accuracy"),
        (only_classes, whole, "roc_auc", "accuracy"),
        (whole, only_values, "accuracy", "roc_auc"),
        (only_values, whole, "accuracy", "roc_auc"),
    ):
        checks, _ = compare_outcomes(mine, Baseline("old", 1, theirs), thresholds)
        by_name = {check.name: check for check in checks}
        assert by_name[f"{NOT_WORSE}: {missing}"].skipped
        assert by_name[f"{NOT_WORSE}: {other}"].message.startswith(f"Not worse than the champion: {other} is 1")
        verdict = decide(checks, champion="old")
        assert verdict.decision is Decision.ACCEPTED
        assert any(f"{missing} cannot be compared with the champion old" in reason for reason in verdict.reasons)


def test_if_no_metric_can_be_compared_all_are_named() -> None:
    values, target = np.array([0.1, 0.9]), np.array([0, 1])
    thresholds = Thresholds.from_json({"roc_auc": {"max_regression": 0.1}, "accuracy": {"max_regression": 0.1}})
    mine, theirs = Outcomes("binary", target, values, target, None, 2), Outcomes("binary", target, None, None, None, 2)
    checks, _ = compare_outcomes(mine, Baseline("old", 1, theirs), thresholds)
    verdict = decide([*checks, Check("roc_auc", 1.0, "≥ 0.5", passed=True, message="")], champion="old")
    assert verdict.decision is Decision.NOT_COMPARED
    assert "roc_auc cannot be compared" in verdict.reasons[0]
    assert "accuracy cannot be compared" in verdict.reasons[0]
