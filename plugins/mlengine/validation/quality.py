"""Checks of a model's behaviour, outputs, metrics and size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlengine.core.errors import ModelError
from mlengine.core.metrics import format_value, info, is_user_metric
from mlengine.core.plural import number_of
from mlengine.core.thresholds import MetricThreshold, SliceThreshold, Thresholds
from mlengine.core.verdict import Check
from mlengine.validation.measured import Measured
from mlengine.validation.metrics.registry import Value
from mlengine.validation.metrics.slices import Slice
from mlengine.validation.outputs import Fitted

BATCH_TOLERANCE = 1e-4  # relative to the largest output


def error_text(error: ModelError) -> str:
    """An error as the message of a check."""
    return f"{error.message}. To correct it: {error.hint}." if error.hint else f"{error.message}."


def run_checks(measured: Measured, thresholds: Thresholds) -> list[Check]:
    """The checks of a model that was run, except those of its predictions."""
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
    text = (
        f"The predictions of {bad:,} of {number_of(rows, 'row')} are not finite."
        if bad
        else "All predictions are finite."
    )
    return [
        Check("outputs", task, "as the task needs", passed=True, message=f"The outputs are those of a {task} model.")
        if task != "none"
        else Check.skip("outputs", "The dataset has no task, so the outputs are not checked."),
        Check("finite predictions", bad, "0 rows without", passed=not bad, message=text),
    ]


def metric_checks(values: Mapping[str, Value], thresholds: Mapping[str, MetricThreshold]) -> list[Check]:
    """The checks of each metric against its minimum and maximum."""
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
    """The checks of the worst slices, one for each slice threshold."""
    checks = []
    for threshold, slices in found:
        metric, rows = threshold.metric, number_of(threshold.min_rows, "row")
        name = f"{metric} by {', '.join(threshold.by)}"
        single = [
            _bounded(
                threshold.metric,
                one.value,
                threshold.min,
                threshold.max,
                f" for {one.name} ({number_of(one.rows, 'row')})",
            )
            for one in slices
            if one.value.number is not None
        ]
        failed = [check for check in single if not check.passed]
        undefined = [one for one in slices if one.value.number is None]
        if not single:
            checks.append(Check.skip(name, f"No slice has {rows} and a defined {metric}."))
            continue
        text = f"All slices with at least {rows} pass ({number_of(len(single), 'slice')})."
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
    """The check of the total size of all files."""
    if maximum is None:
        return Check.skip("size", f"The model has {_mib(size)}; no maximum is set.")
    text = f"The model has {_mib(size)}; the maximum is {_mib(maximum)}."
    return Check("size", size, f"≤ {_mib(maximum)}", passed=size <= maximum, message=text)


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
    """The check that a row's outputs do not depend on the other rows of its batch.

    Rounding depends on the batch size and grows with the outputs, so the threshold is relative to the largest output.
    """
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


def _mib(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB" if size >= 100_000 else number_of(size, "byte")
