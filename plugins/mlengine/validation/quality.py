"""Checks of a model's behaviour and quality, and its comparison with the champion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlengine.core.metrics import format_difference, format_value, info, is_user_metric
from mlengine.core.thresholds import MetricThreshold, SliceThreshold, Thresholds, WhenUndecided
from mlengine.core.verdict import LATENCY_RATIO, NOT_WORSE, SIZE_RATIO, Check
from mlengine.validation.metrics.bootstrap import Difference, paired
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.metrics.registry import Value
from mlengine.validation.metrics.slices import Slice
from mlengine.validation.outputs import Fitted
from mlengine.validation.paired_test import Paired
from mlengine.validation.runner import Measured

BATCH_TOLERANCE = 1e-4  # relative to the largest output
NO_CHAMPION = "There is no champion to compare with."


@dataclass(frozen=True)
class Baseline:
    """The champion that a model is compared with.

    :param name: its job id.
    :param size: size of its files in bytes.
    :param outcomes: its predictions for the same held-out rows; ``None`` if they are not available.
    :param unavailable: why they are not, as a message.
    """

    name: str
    size: int
    outcomes: Outcomes | None = None
    unavailable: str = ""


def run_checks(measured: Measured, thresholds: Thresholds) -> list[Check]:
    """The checks of a model that was run, apart from its predictions."""
    if measured.error:
        return [Check("runs", "no", "loads and runs", passed=False, message=measured.error)]
    figures = measured.figures
    return [
        Check("runs", "yes", "loads and runs", passed=True, message="The model loads and returns predictions."),
        _keys(figures["keys"]),
        _batches(figures),
        _latency(figures, thresholds),
    ]


def output_checks(fitted: Fitted, rows: int, task: str) -> list[Check]:
    """The checks of outputs that have the form of their task."""
    bad = fitted.not_finite
    text = f"The predictions of {bad} of {rows} rows are not finite." if bad else f"All {rows} predictions are finite."
    return [
        Check("outputs", task, "as the task needs", passed=True, message=f"The outputs are those of a {task} model.")
        if task != "none"
        else Check.skip("outputs", "The dataset has no task, so the outputs are not checked."),
        Check("finite predictions", bad, "0 rows without", passed=not bad, message=text),
    ]


def metric_checks(values: Mapping[str, Value], thresholds: Mapping[str, MetricThreshold]) -> list[Check]:
    """Each metric against its minimum and maximum."""
    checks = []
    for name, threshold in thresholds.items():
        value = values[name]
        if threshold.min is None and threshold.max is None:
            shown = format_value(value.number) if value.number is not None else f"undefined: {value.undefined}"
            checks.append(Check.skip(name, f"{name} is {shown}; no minimum or maximum is set."))
            continue
        checks.append(_bounded(name, value, threshold.min, threshold.max, ""))
    return checks


def slice_checks(found: Iterable[tuple[SliceThreshold, Sequence[Slice]]]) -> list[Check]:
    """For each slice threshold, one check of the worst slices."""
    checks = []
    for threshold, slices in found:
        name = f"{threshold.metric} by {', '.join(threshold.by)}"
        single = [
            _bounded(threshold.metric, one.value, threshold.min, threshold.max, f" for {one.name} ({one.rows} rows)")
            for one in slices
            if one.value.number is not None
        ]
        failed = [check for check in single if not check.passed]
        undefined = [one for one in slices if one.value.number is None]
        if not single:
            checks.append(Check.skip(name, f"No slice has {threshold.min_rows} rows and a defined {threshold.metric}."))
            continue
        text = f"All {len(single)} slices with at least {threshold.min_rows} rows pass."
        if failed:
            more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
            text = (
                f"{len(failed)} of {len(single)} slices fail: {' '.join(check.message for check in failed[:3])}{more}"
            )
        if undefined:
            text += f" Undefined in {len(undefined)} ({undefined[0].name}: {undefined[0].value.undefined})."
        worst = (failed or single)[0]
        checks.append(Check(name, worst.value, worst.threshold, passed=not failed, message=text))
    return checks


def size_check(size: int, maximum: int | None) -> Check:
    """The size of all files together."""
    if maximum is None:
        return Check.skip("size", f"The model has {_mib(size)}; no maximum is set.")
    text = f"The model has {_mib(size)}; the maximum is {_mib(maximum)}."
    return Check("size", size, f"≤ {_mib(maximum)}", passed=size <= maximum, message=text)


@dataclass(frozen=True)
class Comparison:
    """The comparison with the champion.

    :param differences: by metric.
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
    :param size: size of the model's files in bytes.
    :param not_run: why it has none, as a message.
    """
    if baseline is None:
        names = (NOT_WORSE, LATENCY_RATIO, SIZE_RATIO)
        return Comparison(tuple(Check.skip(name, NO_CHAMPION, comparison=True) for name in names), {})
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
    """By metric: the exact paired test for the accuracy of rows of equal weight, else the paired bootstrap."""
    found: dict[str, Difference] = {}
    rest = list(metrics)
    if "accuracy" in rest and outcomes.weight is None and champion.predicted is not None:
        rest.remove("accuracy")
        mine, theirs = (one.need_classes() == one.target for one in (outcomes, champion))
        exact = Paired(outcomes.rows, int((mine & ~theirs).sum()), int((theirs & ~mine).sum()))
        low, high = exact.interval(confidence)
        found["accuracy"] = Difference(
            "accuracy", float(mine.mean()), float(theirs.mean()), exact.difference, low, high
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


def _bounded(name: str, value: Value, least: float | None, most: float | None, where: str) -> Check:
    threshold = " and ".join(
        part
        for part in (f"≥ {least:,.10g}" if least is not None else "", f"≤ {most:,.10g}" if most is not None else "")
        if part
    )
    if value.number is None:
        text = f"{name}{where} is undefined: {value.undefined}."
        return Check(name, None, threshold, passed=False, message=text)
    passed = (least is None or value.number >= least) and (most is None or value.number <= most)
    better = "" if is_user_metric(name) or info(name).higher_is_better else " (lower is better)"
    text = f"{name}{where} is {format_value(value.number)}{better}; it must be {threshold}."
    return Check(name, value.number, threshold, passed=passed, message=text)


def _keys(keys: Mapping[str, Any] | None) -> Check:
    if keys is None:
        return Check.skip("keys returned", "The model has no key.")
    if keys["wrong"]:
        text = f"The model does not return the keys that were sent: {', '.join(keys['wrong'])}."
        return Check("keys returned", len(keys["wrong"]), "as sent", passed=False, message=text)
    text = f"The model returned all {keys['sent']} keys as sent, including negative and 64-bit ones."
    return Check("keys returned", "yes", "as sent", passed=True, message=text)


def _batches(figures: Mapping[str, Any]) -> Check:
    """Rounding depends on the batch size and grows with the outputs, so the threshold is relative to the largest."""
    gap, largest = figures["batch_difference"], figures["largest"]
    if isinstance(gap, str) or isinstance(largest, str):
        return Check.skip("batch independence", "Not checked, because some predictions are not finite.")
    threshold = BATCH_TOLERANCE * max(largest, 1e-6)
    passed = gap <= threshold
    text = "A row's predictions do not depend on the other rows of its batch." if passed else (
        f"A row's predictions depend on the other rows of its batch: they differ by {gap:.4g}, and the largest is"
        f" {largest:.4g}."
    )  # fmt: skip
    return Check("batch independence", gap, f"≤ {threshold:.2g}", passed=passed, message=text)


def _latency(figures: Mapping[str, Any], thresholds: Thresholds) -> Check:
    value, maximum = figures["latency_ms"], thresholds.latency_ms
    if maximum is None:
        return Check.skip("latency", f"One row takes {value:.2f} ms; no maximum is set.")
    text = f"One row takes {value:.2f} ms; the maximum is {maximum:g} ms."
    return Check("latency", value, f"≤ {maximum:g} ms", passed=value <= maximum, message=text)


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


def _mib(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB" if size >= 100_000 else f"{size} bytes"
