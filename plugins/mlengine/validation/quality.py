"""What the probe measured, held to the thresholds and to the champion."""

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
BATCH_TOLERANCE = 1e-4  # of the largest score, or of 1
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


def declared_columns(scores: Tensor) -> int | None:
    """How many scores a row has by the model's signature; ``None`` if it does not say."""
    if scores.shape is None or len(scores.shape) not in {1, 2}:
        return None
    columns = scores.shape[1] if len(scores.shape) == 2 else 1
    return columns if columns > 0 else None


def class_scores(columns: int, classes: int, output: str) -> Check:
    """Whether there is one score for each class: without that, the highest score names no class.

    One column may be a sigmoid's probability, a regression's value or a class number: the shape does not say which, so
    no accuracy is computed from it.
    """
    name, bound = "one score per class", f"{classes} scores a row"
    if columns == classes:
        text = f"Output {output!r} has one score for each of the {classes} classes."
        return Check(name, columns, bound, passed=True, sentence=text)
    if columns == 1:
        text = (
            f"Output {output!r} has a single value a row, and the dataset has {classes} classes: whether it is a"
            " probability, a regression or a class number cannot be told, so its quality cannot be measured. Export"
            f" {classes} scores a row (for a binary model, those of both classes), or validate with"
            " validation_level='signature'."
        )
    else:
        text = (
            f"Output {output!r} has {columns} scores a row, and the dataset has {classes} classes: the highest score"
            f" does not name a class of the dataset. Export {classes} scores a row, or register the dataset with"
            f" --classes {columns}."
        )
    return Check(name, columns, bound, passed=False, sentence=text)


def value_checks(measured: Measured, thresholds: Thresholds, expected: Expectation, classes: int) -> list[Check]:
    """The questions that need no champion.

    :param classes: how many the dataset has.
    """
    if measured.error:
        return [Check("runs", "no", "loads and answers", passed=False, sentence=measured.error)]
    figures = measured.figures
    checks = [
        Check("runs", "yes", "loads and answers", passed=True, sentence="The model loads and answers."),
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
    measured: Measured, size: int, rival: Rival | None, thresholds: Thresholds, *, not_run: str = ""
) -> tuple[list[Check], Paired | None]:
    """The questions about the champion; all skipped without one. Size is compared of models that do not run, too.

    :param not_run: why the model has no predictions, in a sentence.
    """
    if rival is None:
        names = (NOT_WORSE, LATENCY_RATIO, SIZE_RATIO)
        return [Check.skip(name, NO_CHAMPION, comparison=True) for name in names], None
    size_ratio = _size_ratio(size, rival, thresholds)
    if not measured.predictions:
        why = not_run or "The model gave no predictions."
        return [*(Check.skip(name, why, comparison=True) for name in (NOT_WORSE, LATENCY_RATIO)), size_ratio], None
    paired = None
    if rival.predictions is not None:
        paired = Paired.of(measured.labels, measured.predictions, rival.predictions)
    return [compare(paired, rival.name, thresholds), _latency_ratio(measured.baseline, thresholds), size_ratio], paired


def compare(paired: Paired | None, champion: str, thresholds: Thresholds) -> Check:
    """Challenger and champion on the same rows. ``paired`` is ``None`` if the champion has no answers for them."""
    name, tolerance = NOT_WORSE, thresholds.tolerance
    if tolerance is None:
        return Check.skip(name, "No tolerance is set.", comparison=True)
    bound = f"≥ {-tolerance:.4f}"
    if paired is None:
        text = (
            f"{champion} could not be run on these rows, and no predictions of it for them are stored. Roll back to a"
            " champion that can be run, or publish with force."
        )
        return Check.skip(name, text, bound=bound, comparison=True)
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
    """Rounding differs with the size of a batch, and grows with the scores: the bound is relative to the largest."""
    gap = figures["batch_difference"]
    if figures["not_finite"]:
        return Check.skip("batch independence", NOT_NUMBERS)
    bound = BATCH_TOLERANCE * max(1.0, _number(figures["largest"]))
    good = _number(gap) <= bound
    text = "A row's scores do not depend on the other rows of its batch." if good else (
        f"A row's scores depend on the other rows of its batch: they differ by {gap}, with scores up to"
        f" {figures['largest']}."
    )  # fmt: skip
    return Check("batch independence", gap, f"≤ {bound:g}", passed=good, sentence=text)


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
    name, ceiling = LATENCY_RATIO, thresholds.latency_ratio
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
    name, ceiling = SIZE_RATIO, thresholds.size_ratio
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
