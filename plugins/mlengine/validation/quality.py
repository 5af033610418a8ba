"""Checks of the probe's measurements against the thresholds, and comparison with the champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlengine.core.verdict import LATENCY_RATIO, NOT_WORSE, SIZE_RATIO, Check, Thresholds, WhenUndecided
from mlengine.validation.paired_test import Paired, Standing
from mlengine.validation.runner import Measured
from mlengine.validation.saved_model import Tensor
from mlengine.validation.signature import Expectation

SUM_TOLERANCE = 1e-3
BATCH_TOLERANCE = 1e-4  # relative to the largest score, or to 1 if that is larger
NOT_NUMBERS = "Not checked, because some scores are not finite."
NO_CHAMPION = "There is no champion to compare with."


@dataclass(frozen=True)
class Baseline:
    """The champion that a model is compared with.

    :param name: its job id.
    :param size: size of its files in bytes.
    :param predictions: its predicted classes for the same held-out rows; ``None`` if they are not available.
    """

    name: str
    size: int
    predictions: tuple[int, ...] | None = None


def declared_columns(scores: Tensor) -> int | None:
    """The number of scores per row in the signature; ``None`` if the shape leaves it open."""
    if scores.shape is None or len(scores.shape) not in {1, 2}:
        return None
    columns = scores.shape[1] if len(scores.shape) == 2 else 1
    return columns if columns > 0 else None


def class_scores(columns: int, classes: int, output: str) -> Check:
    """Check that each row has one score per class. Otherwise the highest score does not identify a class.

    A single column can be a sigmoid's probability, a regression value or a class number. The shape does not show
    which, so no accuracy is computed.
    """
    name, threshold = "one score per class", f"{classes} scores per row"
    if columns == classes:
        text = f"Output {output!r} has one score for each of the {classes} classes."
        return Check(name, columns, threshold, passed=True, message=text)
    if columns == 1:
        text = (
            f"Output {output!r} has a single value per row, and the dataset has {classes} classes. The value may be a"
            " probability, a regression value or a class number, so the quality cannot be measured. Export"
            f" {classes} scores per row (for a binary model, the scores of both classes), or use"
            " validation_level='signature'."
        )
    else:
        text = (
            f"Output {output!r} has {columns} scores per row, but the dataset has {classes} classes."
            f" Export {classes} scores per row, or register the dataset with --classes {columns}."
        )
    return Check(name, columns, threshold, passed=False, message=text)


def value_checks(measured: Measured, thresholds: Thresholds, expected: Expectation, classes: int) -> list[Check]:
    """The checks that need no champion.

    :param classes: number of classes of the dataset.
    """
    if measured.error:
        return [Check("runs", "no", "loads and runs", passed=False, message=measured.error)]
    figures = measured.figures
    checks = [
        Check("runs", "yes", "loads and runs", passed=True, message="The model loads and returns scores."),
        _keys(figures["keys"]),
        class_scores(figures["columns"], classes, expected.scores),
    ]
    if figures["columns"] != classes:
        return checks
    return [
        *checks,
        _finite(figures),
        _sums(figures, expected),
        _batches(figures),
        _accuracy(figures, thresholds),
        _per_class(figures, thresholds),
        _latency(figures, thresholds),
    ]


def comparison_checks(
    measured: Measured, size: int, baseline: Baseline | None, thresholds: Thresholds, *, not_run: str = ""
) -> tuple[list[Check], Paired | None]:
    """The comparisons with the champion; all are skipped if there is none. The size is compared in any case.

    :param size: size of the model's files in bytes.
    :param not_run: why the model has no predictions, as a message.
    :returns: the checks, and the paired comparison if there is one.
    """
    if baseline is None:
        names = (NOT_WORSE, LATENCY_RATIO, SIZE_RATIO)
        return [Check.skip(name, NO_CHAMPION, comparison=True) for name in names], None
    size_ratio = _size_ratio(size, baseline, thresholds)
    if not measured.predictions:
        reason = not_run or "The model returned no predictions."
        return [*(Check.skip(name, reason, comparison=True) for name in (NOT_WORSE, LATENCY_RATIO)), size_ratio], None
    paired = None
    if baseline.predictions is not None:
        paired = Paired.of(measured.labels, measured.predictions, baseline.predictions)
    return [
        compare(paired, baseline.name, thresholds),
        _latency_ratio(measured.baseline, thresholds),
        size_ratio,
    ], paired


def compare(paired: Paired | None, champion: str, thresholds: Thresholds) -> Check:
    """Check that the challenger is not worse than the champion.

    :param paired: the comparison on the same rows; ``None`` if the champion has no predictions for them.
    :param champion: the champion's job id.
    """
    name, tolerance = NOT_WORSE, thresholds.tolerance
    if tolerance is None:
        return Check.skip(name, "No tolerance is set.", comparison=True)
    threshold = f"≥ {-tolerance:.4f}"
    if paired is None:
        text = (
            f"The champion {champion} could not be run on these rows, and has no stored predictions for them. Roll back"
            " to a champion that can be run, or publish with force."
        )
        return Check.skip(name, text, threshold=threshold, comparison=True)
    low, high = paired.interval(thresholds.confidence)
    standing = paired.standing(tolerance, thresholds.confidence)
    facts = (
        f"{_points(paired.difference)} of accuracy ({_points(low)} to {_points(high)} with {thresholds.confidence:.0%}"
        f" one-sided confidence; {paired.gained} rows gained and {paired.lost} lost of {paired.rows})"
    )
    limit = f"the tolerance is {tolerance * 100:.2f} points"
    if standing is Standing.NOT_WORSE:
        text, passed = f"Not worse than the champion {champion}: {facts}; {limit}.", True
    elif standing is Standing.WORSE:
        text, passed = f"Worse than the champion {champion}: {facts}; {limit}.", False
    else:
        passed = thresholds.undecided is WhenUndecided.ACCEPT
        text = (
            f"Undecided on {paired.rows} rows whether the model is worse than the champion {champion}: {facts};"
            f" {limit}. Undecided models are {'accepted' if passed else 'rejected'}."
        )
    return Check(name, round(paired.difference, 6), threshold, passed=passed, message=text, comparison=True)


def _keys(keys: Mapping[str, Any] | None) -> Check:
    if keys is None:
        return Check.skip("keys returned", "The serving signature has no key.")
    if keys["wrong"]:
        text = f"Keys were not returned as sent: {', '.join(keys['wrong'])}."
        return Check("keys returned", len(keys["wrong"]), "as sent", passed=False, message=text)
    text = f"All {keys['sent']} keys were returned as sent, including negative and 64-bit keys."
    return Check("keys returned", "yes", "as sent", passed=True, message=text)


def _finite(figures: Mapping[str, Any]) -> Check:
    bad, rows = figures["not_finite"], figures["rows"]
    text = (
        f"{bad} of {rows} rows have scores that are not finite."
        if bad
        else f"The scores of all {rows} rows are finite."
    )
    return Check("finite scores", bad, "0 rows not finite", passed=not bad, message=text)


def _sums(figures: Mapping[str, Any], expected: Expectation) -> Check:
    name, error = "scores are probabilities", figures["sum_error"]
    if figures["not_finite"]:
        return Check.skip(name, NOT_NUMBERS)
    if not expected.probabilities:
        return Check.skip(name, "The serving signature has probabilities=False.")
    lowest = figures["lowest"]
    good = _number(error) <= SUM_TOLERANCE and _number(lowest) >= -SUM_TOLERANCE
    text = f"The scores of each row sum to 1 (largest deviation {error:.1g})." if good else (
        f"The scores are not probabilities: the sum of a row deviates from 1 by {error}, and the lowest"
        f" score is {lowest}."
    )  # fmt: skip
    return Check(name, error, f"sum 1 ± {SUM_TOLERANCE:g}", passed=good, message=text)


def _batches(figures: Mapping[str, Any]) -> Check:
    """The limit is relative to the largest score, because rounding errors grow with the scores."""
    gap = figures["batch_difference"]
    if figures["not_finite"]:
        return Check.skip("batch independence", NOT_NUMBERS)
    threshold = BATCH_TOLERANCE * max(1.0, _number(figures["largest"]))
    good = _number(gap) <= threshold
    text = "The scores of a row do not depend on the other rows in the batch." if good else (
        f"The scores of a row depend on the other rows in the batch: they differ by {gap}, with scores up to"
        f" {figures['largest']}."
    )  # fmt: skip
    return Check("batch independence", gap, f"≤ {threshold:g}", passed=good, message=text)


def _accuracy(figures: Mapping[str, Any], thresholds: Thresholds) -> Check:
    value, minimum = figures["accuracy"], thresholds.accuracy
    if minimum is None:
        return Check.skip("accuracy", f"Accuracy is {value:.4f}; no minimum is set.")
    good = value >= minimum
    text = f"Accuracy on {figures['rows']} held-out rows is {value:.4f}; the minimum is {minimum:g}."
    return Check("accuracy", value, f"≥ {minimum:g}", passed=good, message=text)


def _per_class(figures: Mapping[str, Any], thresholds: Thresholds) -> Check:
    name, minimum = "accuracy per class", thresholds.per_class
    shares = {label: share for label, share in enumerate(figures["per_class"]) if share is not None}
    if minimum is None or not shares:
        return Check.skip(name, "No minimum per class is set.")
    worst = min(shares, key=lambda label: shares[label])
    under = [f"{label} ({share:.4f})" for label, share in shares.items() if share < minimum]
    text = f"The lowest accuracy of a class is {shares[worst]:.4f}, of class {worst}; the minimum is {minimum:g}."
    if under:
        text = f"{len(under)} of {len(shares)} classes are below the minimum {minimum:g}: {', '.join(under)}."
    return Check(name, shares[worst], f"≥ {minimum:g} in each class", passed=not under, message=text)


def _latency(figures: Mapping[str, Any], thresholds: Thresholds) -> Check:
    value, maximum = figures["latency_ms"], thresholds.latency_ms
    if maximum is None:
        return Check.skip("latency", f"One row takes {value:.2f} ms; no maximum is set.")
    good = value <= maximum
    text = f"One row takes {value:.2f} ms; the maximum is {maximum:g} ms."
    return Check("latency", value, f"≤ {maximum:g} ms", passed=good, message=text)


def _latency_ratio(baseline: Mapping[str, Any], thresholds: Thresholds) -> Check:
    name, maximum = LATENCY_RATIO, thresholds.latency_ratio
    if maximum is None:
        return Check.skip(name, "No maximum is set.", comparison=True)
    if "latency_ms" not in baseline:
        return Check.skip(name, "The champion was not run together with the model.", comparison=True)
    mine, theirs = baseline["challenger_latency_ms"], baseline["latency_ms"]
    ratio = mine / theirs
    good = ratio <= maximum
    text = (
        f"One row takes {mine:.2f} ms, {ratio:.2f} times the champion's {theirs:.2f} ms; the maximum is"
        f" {maximum:g} times."
    )
    return Check(name, round(ratio, 4), f"≤ {maximum:g}", passed=good, message=text, comparison=True)


def _size_ratio(size: int, baseline: Baseline, thresholds: Thresholds) -> Check:
    name, maximum = SIZE_RATIO, thresholds.size_ratio
    if maximum is None or not baseline.size:
        return Check.skip(name, "No maximum is set, or the champion's size is unknown.", comparison=True)
    ratio = size / baseline.size
    text = f"The model is {ratio:.2f} times as large as the champion; the maximum is {maximum:g} times."
    return Check(name, round(ratio, 4), f"≤ {maximum:g}", passed=ratio <= maximum, message=text, comparison=True)


def _points(share: float) -> str:
    return f"{share * 100:+.2f} points"


def _number(value: float | str) -> float:
    """A value that is not finite is a string in JSON. It fails every comparison."""
    return value if isinstance(value, (int, float)) else float("nan")
