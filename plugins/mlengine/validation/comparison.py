"""The comparison of a model with the champion: its metrics, its latency and its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlengine.core.metrics import format_difference, format_value
from mlengine.core.thresholds import MetricThreshold, Thresholds, WhenUndecided
from mlengine.core.verdict import LATENCY_RATIO, NOT_WORSE, SIZE_RATIO, Check
from mlengine.validation.measured import Measured
from mlengine.validation.metrics.bootstrap import Difference, paired
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.paired_counts import PairedCounts

_COMPARED = {NOT_WORSE: "Metrics", LATENCY_RATIO: "The latency", SIZE_RATIO: "The size"}


@dataclass(frozen=True)
class Baseline:
    """The champion that a model is compared with.

    :param name: the champion's job id.
    :param size: the size of its files in bytes.
    :param outcomes: its predictions for the same held-out rows; ``None`` if they are not available.
    :param unavailable: a message that says why they are not available.
    """

    name: str
    size: int
    outcomes: Outcomes | None = None
    unavailable: str = ""


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison with the champion.

    :param differences: the differences by metric.
    """

    checks: tuple[Check, ...]
    differences: Mapping[str, Difference]


def compare(
    outcomes: Outcomes | None,
    measured: Measured,
    size: int,
    baseline: Baseline | None,
    thresholds: Thresholds,
    *,
    not_run: str = "",
) -> Comparison:
    """Compare a model with the champion; everything is skipped if there is none. The size is compared in any case.

    :param outcomes: the model's predictions; ``None`` if it has none that can be compared.
    :param size: the size of the model's files in bytes.
    :param not_run: a message that says why the model has no predictions.
    """
    if baseline is None:
        reasons = {name: f"There is no champion. {what} cannot be compared." for name, what in _COMPARED.items()}
        return Comparison(tuple(Check.skip(name, why, comparison=True) for name, why in reasons.items()), {})
    size_ratio = _size_ratio(size, baseline, thresholds)
    if outcomes is None:
        reason = not_run or "The model has no predictions to compare."
        skipped = (Check.skip(name, reason, comparison=True) for name in (NOT_WORSE, LATENCY_RATIO))
        return Comparison((*skipped, size_ratio), {})
    checks, differences = compare_outcomes(outcomes, baseline, thresholds)
    return Comparison((*checks, _latency_ratio(measured.baseline, thresholds), size_ratio), differences)


def compare_outcomes(
    outcomes: Outcomes, baseline: Baseline, thresholds: Thresholds
) -> tuple[list[Check], Mapping[str, Difference]]:
    """Compare two models by each metric that has a maximum regression."""
    compared = {
        name: item for name, item in thresholds.for_task(outcomes.task).items() if item.max_regression is not None
    }
    if not compared:
        return [Check.skip(NOT_WORSE, "No metric has a max_regression.", comparison=True)], {}
    if baseline.outcomes is None:
        return [Check.skip(NOT_WORSE, baseline.unavailable, comparison=True)], {}
    differences = paired_differences(outcomes, baseline.outcomes, list(compared), thresholds.confidence)
    return [_not_worse(differences[name], compared[name], baseline.name, thresholds) for name in compared], differences


def paired_differences(
    outcomes: Outcomes, champion: Outcomes, metrics: Sequence[str], confidence: float
) -> dict[str, Difference]:
    """The differences by metric: from paired counts for accuracy without weights, else by paired bootstrap."""
    found: dict[str, Difference] = {}
    rest = list(metrics)
    known = outcomes.predicted is not None and champion.predicted is not None
    if "accuracy" in rest and outcomes.weight is None and known:
        rest.remove("accuracy")
        mine, theirs = (one.need_classes() == one.target for one in (outcomes, champion))
        counts = PairedCounts(outcomes.rows, int((mine & ~theirs).sum()), int((theirs & ~mine).sum()))
        low, high = counts.interval(confidence)
        found["accuracy"] = Difference(
            "accuracy", float(mine.mean()), float(theirs.mean()), counts.difference, low, high
        )
    if rest:
        found |= paired(outcomes, champion, rest, confidence=confidence)
    return {name: found[name] for name in metrics}


def _not_worse(difference: Difference, threshold: MetricThreshold, champion: str, thresholds: Thresholds) -> Check:
    name = f"{NOT_WORSE}: {difference.metric}"
    if difference.undefined:
        text = f"{difference.metric} cannot be compared with the champion {champion}: {difference.undefined}."
        return Check.skip(name, text, comparison=True)
    tolerance = threshold.tolerance(difference.champion)
    facts = (
        f"{difference.metric} is {format_value(difference.challenger)}, the champion's is"
        f" {format_value(difference.champion)}"
        f" ({champion}); with {thresholds.confidence:.0%} one-sided confidence it is better by"
        f" {format_difference(difference.low)} to {format_difference(difference.high)}"
    )
    limit = f"it may be worse by {format_value(tolerance)}" + (f" ({difference.note})" if difference.note else "")
    if difference.low >= -tolerance:
        text, passed = f"Not worse than the champion: {facts}; {limit}.", True
    elif difference.gain < -tolerance and difference.high < 0:
        text, passed = f"Worse than the champion: {facts}; {limit}.", False
    else:
        passed = thresholds.undecided is WhenUndecided.ACCEPT
        text = (
            f"The held-out set is too small to decide whether it is worse than the champion: {facts}; {limit}."
            f" With undecided={thresholds.undecided.value}, it is {'accepted' if passed else 'rejected'}."
        )
    return Check(
        name, round(difference.gain, 6), f"≥ {format_value(-tolerance)}", passed=passed, message=text, comparison=True
    )


def _latency_ratio(baseline: Mapping[str, Any], thresholds: Thresholds) -> Check:
    name, maximum = LATENCY_RATIO, thresholds.latency_ratio
    if maximum is None:
        return Check.skip(name, "No maximum is set.", comparison=True)
    if "latency_ms" not in baseline:
        return Check.skip(name, "The champion was not run together with the model.", comparison=True)
    mine, theirs = baseline["challenger_latency_ms"], baseline["latency_ms"]
    ratio = mine / theirs
    text = f"One row takes {mine:.2f} ms, {ratio:.2f} times the champion's {theirs:.2f} ms; the maximum is {maximum:g}."
    return Check(name, round(ratio, 4), f"≤ {maximum:g}", passed=ratio <= maximum, message=text, comparison=True)


def _size_ratio(size: int, baseline: Baseline, thresholds: Thresholds) -> Check:
    name, maximum = SIZE_RATIO, thresholds.size_ratio
    if maximum is None or not baseline.size:
        return Check.skip(name, "No maximum is set, or the champion's size is unknown.", comparison=True)
    ratio = size / baseline.size
    text = f"The model's size is {ratio:.2f} times the champion's; the maximum is {maximum:g}."
    return Check(name, round(ratio, 4), f"≤ {maximum:g}", passed=ratio <= maximum, message=text, comparison=True)
