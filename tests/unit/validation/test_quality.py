"""Measurements and thresholds: result and message of each check."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.core.verdict import NOT_WORSE, Check, Thresholds, WhenUndecided
from mlengine.validation.paired_test import Paired
from mlengine.validation.quality import Baseline, compare, comparison_checks, declared_columns, value_checks
from mlengine.validation.runner import Measured
from mlengine.validation.saved_model import Tensor
from mlengine.validation.signature import Expectation

FIGURES: dict[str, Any] = {
    "keys": {"sent": 10, "wrong": []},
    "batch_difference": 1e-7,
    "largest": 1.0,
    "columns": 3,
    "rows": 100,
    "not_finite": 0,
    "sum_error": 1e-7,
    "lowest": 0.0,
    "accuracy": 0.98,
    "per_class": [0.99, 0.97, None],
    "latency_ms": 2.0,
}


def run_checks(
    thresholds: Thresholds | None = None, expected: Expectation | None = None, **changes: Any
) -> dict[str, Check]:
    measured = Measured(figures={**FIGURES, **changes})
    checks = value_checks(measured, thresholds or Thresholds(), expected or Expectation(), 3)
    return {check.name: check for check in checks}


def test_good_measurements_pass_every_check() -> None:
    assert all(check.passed for check in run_checks().values())
    assert [name for name, check in run_checks().items() if check.skipped] == ["latency"]


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("keys returned", {"keys": {"sent": 10, "wrong": ["-5"]}}, "not returned as sent: -5"),
        ("finite scores", {"not_finite": 3}, "3 of 100 rows have scores that are not finite"),
        ("scores are probabilities", {"sum_error": 0.5}, "deviates from 1 by 0.5"),
        ("scores are probabilities", {"sum_error": "inf"}, "deviates from 1 by inf"),
        ("scores are probabilities", {"lowest": -0.2}, "lowest score is -0.2"),
        ("batch independence", {"batch_difference": 0.01}, "differ by 0.01"),
        ("batch independence", {"batch_difference": "nan"}, "differ by nan"),
        ("accuracy", {"accuracy": 0.9699}, "0.9699; the minimum is 0.97"),
        (
            "accuracy per class",
            {"per_class": [0.99, 0.5, None]},
            "classes are below the minimum 0.9: 1 (0.5000)",
        ),
    ],
)
def test_each_bad_measurement_fails_its_check(name: str, changes: dict[str, Any], words: str) -> None:
    checks = run_checks(**changes)
    assert [check.name for check in checks.values() if not check.passed] == [name]
    assert words in checks[name].message


def test_a_value_equal_to_the_threshold_passes() -> None:
    assert run_checks(Thresholds(accuracy=0.98, per_class=0.97, latency_ms=2.0))["accuracy"].passed
    slow = run_checks(Thresholds(latency_ms=1.9))["latency"]
    assert not slow.passed
    assert slow.message == "One row takes 2.00 ms; the maximum is 1.9 ms."


def test_checks_without_a_threshold_are_skipped() -> None:
    checks = run_checks(
        Thresholds(accuracy=None, per_class=None), Expectation(probabilities=False), keys=None, sum_error=9.0
    )
    skipped = {name for name, check in checks.items() if check.skipped}
    assert skipped >= {"accuracy", "accuracy per class", "scores are probabilities", "keys returned"}
    assert all(check.passed for check in checks.values())


def test_a_model_that_failed_is_not_compared() -> None:
    measured = Measured(error="The model was killed after 8 s at keys.")
    (check,) = value_checks(measured, Thresholds(), Expectation(), 3)
    assert not check.passed
    checks, paired = comparison_checks(measured, 1, Baseline("old", 1, (1,)), Thresholds())
    assert paired is None
    assert [check.name for check in checks if check.skipped] == [NOT_WORSE, "latency ratio"]


def test_latency_and_size_are_compared_with_the_champion() -> None:
    measured = Measured(
        figures=FIGURES,
        baseline={"latency_ms": 1.0, "challenger_latency_ms": 3.5},
        labels=(1,) * 1000,
        predictions=(1,) * 1000,
    )
    checks, paired = comparison_checks(measured, 400, Baseline("old", 100, (1,) * 1000), Thresholds())
    assert paired == Paired(1000, 0, 0)
    results = {check.name: check.passed for check in checks}
    assert results == {"not worse than champion": True, "latency ratio": False, "size ratio": False}
    assert "3.50 times the champion's 1.00 ms" in checks[1].message
    assert "4.00 times" in checks[2].message


@pytest.mark.parametrize(
    ("paired", "passed", "words"),
    [
        (Paired(10_000, 90, 100), True, "-0.10 points of accuracy"),
        (Paired(10_000, 50, 150), False, "Worse than the champion old: -1.00 points"),
        (Paired(200, 3, 3), False, "Undecided on 200 rows"),
    ],
)
def test_each_result_of_the_comparison_has_its_message(paired: Paired | None, passed: bool, words: str) -> None:
    check = compare(paired, "old", Thresholds())
    assert check.passed is passed
    assert check.comparison
    assert words in check.message


def test_a_champion_without_predictions_is_not_compared() -> None:
    check = compare(None, "old", Thresholds())
    assert check.skipped
    assert "old could not be run on these rows" in check.message


def test_the_size_of_a_model_that_is_not_run_is_compared() -> None:
    why = "The model is not run with validation_level='files'."
    checks, _ = comparison_checks(Measured(), 400, Baseline("old", 100), Thresholds(), not_run=why)
    assert [(check.name, check.skipped, check.passed) for check in checks] == [
        (NOT_WORSE, True, True),
        ("latency ratio", True, True),
        ("size ratio", False, False),
    ]
    assert checks[0].message == why


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            1,
            "a single value per row, and the dataset has 3 classes. The value may be a probability, a regression value",
        ),
        (2, "2 scores per row, but the dataset has 3 classes"),
        (4, "register the dataset with --classes 4"),
    ],
)
def test_scores_that_identify_no_class_are_not_measured(columns: int, words: str) -> None:
    """As the probe reports them: without accuracy."""
    figures = {"keys": None, "batch_difference": 0.0, "largest": 1.0, "columns": columns}
    checks = value_checks(Measured(figures=figures), Thresholds(), Expectation(), 3)
    assert [check.name for check in checks if not check.passed] == ["one score per class"]
    assert words in checks[-1].message
    assert {check.name for check in checks} == {"runs", "keys returned", "one score per class"}


@pytest.mark.parametrize(
    ("scores", "columns"),
    [
        ("float32[-1,1]", 1),
        ("float32[-1]", 1),
        ("int64[-1]", 1),
        ("float32[-1,10]", 10),
        ("float32[-1,-1]", None),
        ("float32", None),
        ("float32[-1,4,10]", None),
    ],
)
def test_the_number_of_scores_in_the_signature(scores: str, columns: int | None) -> None:
    assert declared_columns(Tensor.parse(scores)) == columns


@pytest.mark.parametrize(("gap", "largest", "passed"), [(2e-4, 1.0, False), (2e-4, 50.0, True), (0.1, 50.0, False)])
def test_rounding_between_batches_is_relative_to_the_scores(gap: float, largest: float, passed: bool) -> None:
    expected = Expectation(probabilities=False)
    check = run_checks(None, expected, batch_difference=gap, largest=largest)["batch independence"]
    assert check.passed is passed


def test_undecided_models_are_accepted_on_request() -> None:
    check = compare(Paired(200, 3, 3), "old", Thresholds(undecided=WhenUndecided.ACCEPT))
    assert check.passed
    assert "Undecided models are accepted" in check.message
    assert compare(Paired(200, 3, 3), "old", Thresholds(tolerance=None)).skipped
