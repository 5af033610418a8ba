"""What the probe measured, held to the thresholds and to the champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlengine.core.verdict import Check, Thresholds, WhenUndecided
from mlengine.validation.paired_test import Paired, Standing
from mlengine.validation.runner import Measured
from mlengine.validation.signature import Expectation

SUM_TOLERANCE = 1e-3
BATCH_TOLERANCE = 1e-4
NOT_NUMBERS = "Some scores are not numbers, so this was not asked."
NO_CHAMPION = "There is no champion to compare with."


@dataclass(frozen=True)
class Rival:
    """The champion's side of the comparison.

    :param name: what a sentence calls it: its job id.
    :param size: bytes of its files.
    :param predictions: its classes for the same held-out rows; ``None`` if there is no way to know them.
    """

    name: str
    size: int
    predictions: tuple[int, ...] | None = None


def value_checks(measured: Measured, thresholds: Thresholds, expected: Expectation) -> list[Check]:
    """The questions that need no champion."""
    if measured.error:
        return [Check("runs", "no", "loads and answers", passed=False, sentence=measured.error)]
    figures = measured.figures
    return [
        Check("runs", "yes", "loads and answers", passed=True, sentence="The model loads and answers."),
        _keys(figures["keys"]),
        _finite(figures),
        _sums(figures, expected),
        _batches(figures),
        _accuracy(figures, thresholds),
        _per_class(figures, thresholds),
        _latency(figures, thresholds),
    ]


def comparison_checks(
    measured: Measured, size: int, rival: Rival | None, thresholds: Thresholds
) -> tuple[list[Check], Paired | None]:
    """The questions about the champion; all skipped without one."""
    names = ("not worse than champion", "latency ratio", "size ratio")
    if rival is None:
        return [Check.skip(name, NO_CHAMPION, comparison=True) for name in names], None
    if measured.error:
        why = "The model did not run, so it was not compared."
        return [Check.skip(name, why, comparison=True) for name in names], None
    paired = None
    if rival.predictions is not None:
        paired = Paired.of(measured.labels, measured.predictions, rival.predictions)
    return [
        compare(paired, rival.name, thresholds),
        _latency_ratio(measured.baseline, thresholds),
        _size_ratio(size, rival, thresholds),
    ], paired


def compare(paired: Paired | None, champion: str, thresholds: Thresholds) -> Check:
    """Challenger and champion on the same rows. ``paired`` is ``None`` if the champion could not be asked."""
    name, tolerance = "not worse than champion", thresholds.tolerance
    if tolerance is None:
        return Check.skip(name, "No tolerance was set.", comparison=True)
    bound = f"≥ {-tolerance:.4f}"
    if paired is None:
        text = (
            f"The champion {champion} could not be asked about these rows, so nothing says that the model is not worse."
            " Roll back to one that can, or publish with force."
        )
        return Check(name, None, bound, passed=False, sentence=text, comparison=True)
    low, high = paired.interval(thresholds.confidence)
    standing = paired.standing(tolerance, thresholds.confidence)
    facts = (
        f"{_points(paired.difference)} in accuracy (between {_points(low)} and {_points(high)} at"
        f" {thresholds.confidence:.0%} on each side; {paired.gained} rows gained, {paired.lost} lost of {paired.rows})"
    )
    limit = f"the tolerance is {tolerance * 100:.2f} points"
    if standing is Standing.NOT_WORSE:
        text, passed = f"Against the champion {champion}: {facts}; {limit}.", True
    elif standing is Standing.WORSE:
        text, passed = f"Worse than the champion {champion}: {facts}; {limit}.", False
    else:
        passed = thresholds.undecided is WhenUndecided.ACCEPT
        text = (
            f"Too close to tell on {paired.rows} rows whether it is worse than the champion {champion}: {facts};"
            f" {limit}, and what is undecided is {'accepted' if passed else 'rejected'}."
        )
    return Check(name, round(paired.difference, 6), bound, passed=passed, sentence=text, comparison=True)


def _keys(keys: Mapping[str, Any] | None) -> Check:
    if keys is None:
        return Check.skip("keys come back", "The model has no key.")
    if keys["wrong"]:
        text = f"Keys do not come back as sent: {', '.join(keys['wrong'])}."
        return Check("keys come back", len(keys["wrong"]), "as sent", passed=False, sentence=text)
    text = f"All {keys['sent']} keys came back as sent, negative and 64-bit ones too."
    return Check("keys come back", "yes", "as sent", passed=True, sentence=text)


def _finite(figures: Mapping[str, Any]) -> Check:
    bad, rows = figures["not_finite"], figures["rows"]
    text = (
        f"The scores of {bad} of {rows} rows are not numbers." if bad else f"The scores of all {rows} rows are finite."
    )
    return Check("finite scores", bad, "0 rows without", passed=not bad, sentence=text)


def _sums(figures: Mapping[str, Any], expected: Expectation) -> Check:
    name, error = "scores are probabilities", figures["sum_error"]
    if figures["not_finite"]:
        return Check.skip(name, NOT_NUMBERS)
    if not expected.probabilities:
        return Check.skip(name, "The scores are not expected to be probabilities.")
    lowest = figures["lowest"]
    good = _number(error) <= SUM_TOLERANCE and _number(lowest) >= -SUM_TOLERANCE
    text = f"Each row's scores sum to 1, within {error:.1g}." if good else (
        f"Scores are not probabilities: a row's sum is off by {error}, the lowest score is {lowest}."
    )  # fmt: skip
    return Check(name, error, f"sum 1 ± {SUM_TOLERANCE:g}", passed=good, sentence=text)


def _batches(figures: Mapping[str, Any]) -> Check:
    gap = figures["batch_difference"]
    if figures["not_finite"]:
        return Check.skip("batch independence", NOT_NUMBERS)
    good = _number(gap) <= BATCH_TOLERANCE
    text = "A row's scores do not depend on the rows beside it." if good else (
        f"A row's scores depend on the rows beside it: they differ by {gap}."
    )  # fmt: skip
    return Check("batch independence", gap, f"≤ {BATCH_TOLERANCE:g}", passed=good, sentence=text)


def _accuracy(figures: Mapping[str, Any], thresholds: Thresholds) -> Check:
    value, floor = figures["accuracy"], thresholds.accuracy
    if floor is None:
        return Check.skip("accuracy", f"Accuracy is {value:.4f}; no floor was set.")
    good = value >= floor
    text = f"Accuracy on {figures['rows']} held-out rows is {value:.4f}, {'not under' if good else 'under'} {floor:g}."
    return Check("accuracy", value, f"≥ {floor:g}", passed=good, sentence=text)


def _per_class(figures: Mapping[str, Any], thresholds: Thresholds) -> Check:
    name, floor = "accuracy per class", thresholds.per_class
    shares = {label: share for label, share in enumerate(figures["per_class"]) if share is not None}
    if floor is None or not shares:
        return Check.skip(name, "No floor per class was set.")
    worst = min(shares, key=lambda label: shares[label])
    under = [f"{label} ({share:.4f})" for label, share in shares.items() if share < floor]
    text = f"The weakest class is {worst} with {shares[worst]:.4f}."
    if under:
        text = f"{len(under)} of {len(shares)} classes are under {floor:g}: {', '.join(under)}."
    return Check(name, shares[worst], f"≥ {floor:g} in each", passed=not under, sentence=text)


def _latency(figures: Mapping[str, Any], thresholds: Thresholds) -> Check:
    value, ceiling = figures["latency_ms"], thresholds.latency_ms
    if ceiling is None:
        return Check.skip("latency", f"One row takes {value:.2f} ms; no ceiling was set.")
    good = value <= ceiling
    text = f"One row takes {value:.2f} ms, {'not over' if good else 'over'} {ceiling:g} ms."
    return Check("latency", value, f"≤ {ceiling:g} ms", passed=good, sentence=text)


def _latency_ratio(baseline: Mapping[str, Any], thresholds: Thresholds) -> Check:
    name, ceiling = "latency ratio", thresholds.latency_ratio
    if ceiling is None:
        return Check.skip(name, "No ceiling was set.", comparison=True)
    if "latency_ms" not in baseline:
        return Check.skip(name, "The champion did not run beside the model.", comparison=True)
    mine, theirs = baseline["challenger_latency_ms"], baseline["latency_ms"]
    ratio = mine / theirs
    good = ratio <= ceiling
    text = f"One row takes {mine:.2f} ms, {ratio:.2f} times the champion's {theirs:.2f} ms; the ceiling is {ceiling:g}."
    return Check(name, round(ratio, 4), f"≤ {ceiling:g}", passed=good, sentence=text, comparison=True)


def _size_ratio(size: int, rival: Rival, thresholds: Thresholds) -> Check:
    name, ceiling = "size ratio", thresholds.size_ratio
    if ceiling is None or not rival.size:
        return Check.skip(name, "No ceiling was set, or the champion's size is not known.", comparison=True)
    ratio = size / rival.size
    text = f"The model's size is {ratio:.2f} times the champion's; the ceiling is {ceiling:g}."
    return Check(name, round(ratio, 4), f"≤ {ceiling:g}", passed=ratio <= ceiling, sentence=text, comparison=True)


def _points(share: float) -> str:
    return f"{share * 100:+.2f} points"


def _number(value: float | str) -> float:
    """A figure that JSON could not hold came as text; it fails every bound."""
    return value if isinstance(value, (int, float)) else float("nan")
