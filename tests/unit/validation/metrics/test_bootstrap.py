"""The paired bootstrap, compared with a simple loop, and on rows that leave little to resample."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlengine.validation.metrics import bootstrap
from mlengine.validation.metrics.bootstrap import paired
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.metrics.registry import compute


def binary(rows: int, seed: int, noise: float, *, weight: Any = None) -> Outcomes:
    """Probabilities that follow the target, with noise."""
    target = (np.random.default_rng(7).random(rows) < 0.3).astype(int)
    logit = 2.0 * target - 1 + np.random.default_rng(seed).normal(0, noise, rows)
    values = 1 / (1 + np.exp(-logit))
    return Outcomes("binary", target, values, (values >= 0.5).astype(int), weight, 2)


def multiclass(rows: int, seed: int, share: float) -> Outcomes:
    """Rows of four classes, a ``share`` of which is predicted correctly."""
    random = np.random.default_rng(seed)
    target = np.random.default_rng(7).integers(0, 4, rows)
    predicted = np.where(random.random(rows) < share, target, (target + 1) % 4)
    values = np.full((rows, 4), 0.1)
    values[np.arange(rows), predicted] = 0.7
    return Outcomes("multiclass", target, values, predicted, None, 4)


def regression(rows: int, seed: int, noise: float) -> Outcomes:
    target = np.random.default_rng(7).gamma(2.0, 100_000.0, rows)
    return Outcomes("regression", target, target + np.random.default_rng(seed).normal(0, noise, rows))


def plain_loop(challenger: Outcomes, champion: Outcomes, metric: str, resamples: int) -> tuple[float, float]:
    """The same interval, computed by drawing rows and computing the metric for each draw."""
    random = np.random.default_rng(99)
    strata = [np.arange(challenger.rows)]
    if challenger.task != "regression":
        strata = [np.flatnonzero(challenger.target == one) for one in np.unique(challenger.target)]
    differences = []
    for _ in range(resamples):
        rows = np.concatenate([random.choice(one, len(one)) for one in strata])
        mine, theirs = (compute(metric, one.take(rows)).number for one in (challenger, champion))
        assert mine is not None
        assert theirs is not None
        differences.append(mine - theirs)
    low, high = np.quantile(differences, [0.05, 0.95])
    return float(low), float(high)


PAIRS = {
    "binary": (binary(400, 1, 1.0), binary(400, 2, 1.2)),
    "weighted": tuple(
        binary(400, seed, noise, weight=np.random.default_rng(5).choice([0.5, 3.0], 400))
        for seed, noise in ((1, 1.0), (2, 1.2))
    ),
    "multiclass": (multiclass(400, 1, 0.8), multiclass(400, 2, 0.75)),
    "regression": (regression(400, 1, 5000.0), regression(400, 2, 6000.0)),
}


@pytest.mark.parametrize(
    ("pair", "metric", "higher"),
    [
        ("binary", "roc_auc", True),
        ("binary", "log_loss", False),
        ("binary", "recall@precision=0.6", True),
        ("weighted", "average_precision", True),
        ("weighted", "accuracy", True),
        ("multiclass", "f1_macro", True),
        ("regression", "mean_absolute_error", False),
        ("regression", "median_absolute_error", False),
    ],
)
def test_the_interval_equals_that_of_a_plain_loop(pair: str, metric: str, higher: bool) -> None:
    challenger, champion = PAIRS[pair]
    found = paired(challenger, champion, [metric], resamples=1000)[metric]
    low, high = plain_loop(challenger, champion, metric, 400)
    if not higher:
        low, high = -high, -low
    width = high - low
    assert found.resamples == 1000
    assert found.low == pytest.approx(low, abs=0.2 * width)
    assert found.high == pytest.approx(high, abs=0.2 * width)
    assert found.low < found.gain < found.high
    assert found.challenger == pytest.approx(compute(metric, challenger).number)
    assert found.champion == pytest.approx(compute(metric, champion).number)


def test_the_interval_for_many_rows_approximates_exact_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 10,000 rows on, draws follow a Poisson distribution."""
    mine, theirs = binary(12_000, 1, 1.0), binary(12_000, 2, 1.05)
    fast = paired(mine, theirs, ["roc_auc", "log_loss"], resamples=600)
    monkeypatch.setattr(bootstrap, "_MANY", 10**9)
    exact = paired(mine, theirs, ["roc_auc", "log_loss"], resamples=600)
    for name, difference in fast.items():
        width = exact[name].high - exact[name].low
        assert difference.low == pytest.approx(exact[name].low, abs=0.2 * width)
        assert difference.high == pytest.approx(exact[name].high, abs=0.2 * width)
        assert difference.gain == pytest.approx(exact[name].gain, abs=1e-12)


@pytest.mark.parametrize("rows", [3, 50, 12_000])
def test_equal_models_differ_by_exactly_0(rows: int) -> None:
    one = replace(binary(rows, 1, 1.0), target=np.arange(rows) % 2)
    names = ["roc_auc", "average_precision", "log_loss", "accuracy", "brier_score", "f1_macro"]
    for found in paired(one, replace(one), names, resamples=50).values():
        assert (found.gain, found.low, found.high, found.resamples) == (0, 0, 0, 50)


def test_a_single_row_of_a_class_is_in_each_resample() -> None:
    """Without stratified draws, a third of the resamples would have no positive row, and the interval would be NaN."""
    target = np.array([1] + [0] * 40)
    mine, theirs = (Outcomes("binary", target, np.concatenate(([top], np.linspace(0, 0.9, 40)))) for top in (0.95, 0.5))
    found = paired(mine, theirs, ["roc_auc"], resamples=200)["roc_auc"]
    assert found.resamples == 200
    assert not math.isnan(found.low)
    assert 0 < found.low <= found.gain <= found.high


def test_resamples_in_which_a_metric_is_undefined_do_not_count() -> None:
    """Only one row is predicted positive, so a resample without it has no precision."""
    target = np.array([0, 1] * 20)
    values = np.full(40, 0.1)
    values[1] = 0.9
    one = Outcomes("binary", target, values)
    found = paired(one, one, ["precision"], resamples=300)["precision"]
    assert 150 < found.resamples < 290
    assert (found.low, found.gain, found.high) == (0, 0, 0)
    assert found.note == f"undefined in {300 - found.resamples} of 300 resamples, which are left out"


def test_a_metric_that_most_resamples_leave_undefined_has_no_interval() -> None:
    """Only one row of each class has a weight, and two of five resamples have both."""
    weight = np.zeros(40)
    weight[:2] = 1.0
    one = Outcomes("binary", np.array([0, 1] * 20), np.linspace(0, 1, 40), None, weight)
    found = paired(one, one, ["roc_auc"], resamples=300)["roc_auc"]
    assert 60 < found.resamples < 150
    assert found.undefined == f"it is undefined in {300 - found.resamples} of 300 resamples of the rows"
    assert math.isnan(found.low)
    assert found.challenger == 1.0


def test_few_rows_of_a_class_are_drawn_exactly_among_many_of_another() -> None:
    """Poisson draws would leave a class of 2 rows empty in one of seven resamples."""
    target = np.zeros(12_000, int)
    target[:2] = 1
    values = np.linspace(0, 0.9, 12_000)
    values[:2] = 0.95, 0.3
    one, other = Outcomes("binary", target, values), Outcomes("binary", target, values[::-1].copy())
    found = paired(one, other, ["roc_auc"], resamples=60)["roc_auc"]
    assert (found.resamples, found.drawn, found.note) == (60, 60, "")


def test_a_single_class_cannot_be_compared() -> None:
    one = Outcomes("binary", np.ones(20, int), np.linspace(0, 1, 20), np.ones(20, int), None, 2)
    found = paired(one, one, ["roc_auc", "accuracy"], resamples=20)
    assert found["roc_auc"].undefined == "all 20 rows are of one class"
    assert math.isnan(found["roc_auc"].low)
    assert found["accuracy"].low == 0


def test_the_result_is_reproducible_and_independent_of_row_order() -> None:
    mine, theirs = PAIRS["binary"]
    first, again, other = (paired(mine, theirs, ["roc_auc"], resamples=50, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_rows_of_weight_0_do_not_matter() -> None:
    weight = np.concatenate((np.ones(200), np.zeros(200)))
    mine, theirs = (binary(400, seed, 1.0, weight=weight) for seed in (1, 2))
    found = paired(mine, theirs, ["roc_auc"], resamples=20)["roc_auc"]
    assert found.challenger == compute("roc_auc", replace(mine.take(np.arange(200)), weight=None)).number


def test_more_classes_than_rows_are_not_stratified() -> None:
    target = np.arange(2000)
    one = Outcomes("multiclass", target, None, np.where(target % 3 == 0, target, 0), None, 2_000_000)
    found = paired(one, replace(one, predicted=target), ["accuracy"], resamples=50)["accuracy"]
    assert found.low < found.gain < found.high < 0


def cost(target: Any, prediction: Any, weight: Any) -> float:
    return float(((prediction - target) ** 2) @ weight)


def percent(target: Any, prediction: Any, weight: Any) -> float:
    return float((weight * 100 * (prediction >= 0.5)).sum() / weight.sum())


cost.higher_is_better = False  # type: ignore[attr-defined]
CALLS: list[int] = []


def broken(target: Any, prediction: Any, weight: Any) -> float:
    CALLS.append(1)
    raise ValueError("no such column")


def test_the_weights_of_a_resample_do_not_overflow_in_a_users_function() -> None:
    mine, theirs = PAIRS["binary"]
    chosen = replace(theirs, values=np.ones(theirs.rows))
    found = paired(mine, chosen, [f"{__name__}:percent"], resamples=50)[f"{__name__}:percent"]
    assert found.champion == pytest.approx(100)
    assert -100 < found.low <= found.gain <= found.high < 0


def test_custom_metric_functions_are_compared() -> None:
    mine, theirs = PAIRS["binary"]
    found = paired(mine, theirs, [f"{__name__}:cost", f"{__name__}:broken"], resamples=100)
    first = found[f"{__name__}:cost"]
    assert first.challenger < first.champion
    assert first.low <= first.gain == pytest.approx(first.champion - first.challenger)
    assert found[f"{__name__}:broken"].undefined == "it raised ValueError: no such column"
    assert len(CALLS) == 1
