"""Metrics of the order of probabilities. Rows are sorted once, and each evaluation is a pass over the sorted rows.

The areas and the points of a precision-recall curve need the cumulative weights at positive rows only. So positive and
negative rows are stored separately, each in order of falling score, and for each positive row its position among the
negative rows is stored.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlengine.validation.metrics.outcomes import Evaluate, Outcomes, UndefinedMetricError, dot

if TYPE_CHECKING:
    from mlengine.validation.metrics.outcomes import Array

MOST_PAIRED_CLASSES = 100  # limit for roc_auc_ovo, whose time grows with the number of pairs


@dataclass(frozen=True)
class Sums:
    """The weights at each positive row, in order of falling score.

    :param positive: the weight of the row.
    :param true_positives: the weight of the positive rows whose score is not lower.
    :param false_positives: the weight of the negative rows whose score is not lower.
    :param above: the weight of the negative rows whose score is higher.
    :param negatives: the weight of all negative rows.
    """

    positive: Array
    true_positives: Array
    false_positives: Array
    above: Array
    negatives: float


class Ranking:
    """The rows in order of falling score.

    :param positive: (rows,): whether a row is of the positive class.
    :param order: the numbers of the rows in order of falling score, if they are known.
    """

    def __init__(self, scores: Array, positive: Array, order: Array | None = None) -> None:
        import numpy as np

        order = np.argsort(-scores, kind="stable") if order is None else order
        is_positive = positive[order]
        positives, negatives = order[is_positive], order[~is_positive]
        highest, others = -scores[positives], -scores[negatives]
        self._positives, self._negatives = _rows(positives), _rows(negatives)
        # For each positive row: the number of negative rows whose score is higher, and is not lower; of positive rows.
        self._above = np.searchsorted(others, highest, side="left")
        through = np.searchsorted(others, highest, side="right")
        self._false = None if np.array_equal(through, self._above) else through
        through = np.searchsorted(highest, highest, side="right")
        self._true = None if np.array_equal(through, np.arange(1, len(through) + 1)) else through - 1
        self._latest = threading.local()

    def sums(self, weights: Array) -> Sums:
        """The sums for these weights. Several metrics of one resample share them."""
        if getattr(self._latest, "weights", None) is not weights:
            self._latest.sums, self._latest.weights = self._sums(weights), weights
        return self._latest.sums  # type: ignore[no-any-return]

    def _sums(self, weights: Array) -> Sums:
        import numpy as np

        kind = np.int32 if weights.dtype.kind == "u" else np.float64  # a sum of integers takes a tenth of the time
        positive, negative = _take(weights, self._positives), _take(weights, self._negatives)
        true = positive.cumsum(dtype=kind)
        false = np.zeros(len(negative) + 1, kind)
        negative.cumsum(dtype=kind, out=false[1:])
        above = _take(false, self._above).astype(np.float64, copy=False)
        return Sums(
            positive=positive.astype(np.float64, copy=False),
            true_positives=(true if self._true is None else _take(true, self._true)).astype(np.float64, copy=False),
            false_positives=above if self._false is None else _take(false, self._false).astype(np.float64, copy=False),
            above=above,
            negatives=float(false[-1]),
        )


def _rows(numbers: Array) -> Array | slice:
    """The row numbers as an index: a slice if they are consecutive, which needs no copy."""
    import numpy as np

    first = int(numbers[0]) if len(numbers) else 0
    rows = slice(first, first + len(numbers))
    return rows if np.array_equal(numbers, np.arange(rows.start, rows.stop)) else numbers


def _take(values: Array, rows: Array | slice) -> Array:
    # All numbers are valid. Without a check of them, NumPy needs no buffer.
    return values[rows] if isinstance(rows, slice) else values.take(rows, mode="clip")


def falling(outcomes: Outcomes) -> Array:
    """The numbers of a binary model's rows in order of falling probability. They are sorted once."""
    import numpy as np

    if "falling" not in outcomes.shared:
        outcomes.shared["falling"] = np.argsort(-outcomes.need_values(), kind="stable")
    return outcomes.shared["falling"]  # type: ignore[no-any-return]


def _ranking(outcomes: Outcomes) -> Ranking:
    if "ranking" not in outcomes.shared:
        positive = outcomes.target == 1
        if not positive.any():
            raise UndefinedMetricError(f"none of the {outcomes.rows} rows is of the positive class")
        outcomes.shared["ranking"] = Ranking(outcomes.need_values(), positive, falling(outcomes))
    return outcomes.shared["ranking"]  # type: ignore[no-any-return]


def area_under_roc(ranking: Ranking) -> Evaluate:
    def evaluate(weights: Array) -> float:
        sums = ranking.sums(weights)
        positives = float(sums.true_positives[-1])
        if positives <= 0 or sums.negatives <= 0:
            return float("nan")
        # A positive row loses against the negative rows above it, and half against those of equal score.
        lost = dot(sums.positive, sums.above)
        if sums.false_positives is not sums.above:
            lost = (lost + dot(sums.positive, sums.false_positives)) / 2
        return 1 - lost / (positives * sums.negatives)

    return evaluate


def roc_auc(outcomes: Outcomes) -> Evaluate:
    if (outcomes.target == outcomes.target[0]).all():
        raise UndefinedMetricError(f"all {outcomes.rows} rows are of one class")
    return area_under_roc(_ranking(outcomes))


def roc_auc_ovr(outcomes: Outcomes) -> Evaluate:
    """The mean of the areas under the curve of each class against all others. All classes must have rows."""
    values, target = outcomes.need_values(), outcomes.target
    areas = []
    for one in range(outcomes.class_count):
        positive = target == one
        if positive.all() or not positive.any():
            raise UndefinedMetricError(f"class number {one} has {'all' if positive.any() else 'no'} rows")
        areas.append(area_under_roc(Ranking(values[:, one], positive)))
    return lambda weights: sum(area(weights) for area in areas) / len(areas)


def roc_auc_ovo(outcomes: Outcomes) -> Evaluate:
    """The mean of the areas under the curve of each class against each other, among the rows of the two.

    Only classes that have rows are included.
    """
    import numpy as np

    values, target = outcomes.need_values(), outcomes.target
    present = np.unique(target).tolist()
    if len(present) > MOST_PAIRED_CLASSES:
        raise UndefinedMetricError(
            f"it compares each pair of classes, and there are {len(present)}; the most is {MOST_PAIRED_CLASSES}"
        )
    if len(present) < 2:
        raise UndefinedMetricError(f"all {outcomes.rows} rows are of one class")
    pairs = []
    for one, other in itertools.permutations(present, 2):
        rows = np.flatnonzero((target == one) | (target == other))
        pairs.append((rows, area_under_roc(Ranking(values[rows, one], target[rows] == one))))
    return lambda weights: sum(area(weights[rows]) for rows, area in pairs) / len(pairs)


def average_precision(outcomes: Outcomes) -> Evaluate:
    ranking = _ranking(outcomes)

    def evaluate(weights: Array) -> float:
        sums = ranking.sums(weights)
        total = float(sums.true_positives[-1])
        return dot(sums.positive, _precision(sums)) / total if total > 0 else float("nan")

    return evaluate


def recall_at_precision(outcomes: Outcomes, least: float) -> Evaluate:
    """The largest recall at a threshold whose precision is at least ``least``; 0 if there is none."""
    ranking = _ranking(outcomes)

    def evaluate(weights: Array) -> float:
        sums = ranking.sums(weights)
        recall = sums.true_positives
        reached = recall[_precision(sums) >= least]
        return float(reached.max() / recall[-1]) if len(reached) and recall[-1] > 0 else 0.0

    return evaluate


def precision_at_recall(outcomes: Outcomes, least: float) -> Evaluate:
    """The largest precision at a threshold whose recall is at least ``least``."""
    ranking = _ranking(outcomes)

    def evaluate(weights: Array) -> float:
        sums = ranking.sums(weights)
        recall = sums.true_positives
        return float(_precision(sums)[recall >= least * recall[-1]].max()) if recall[-1] > 0 else float("nan")

    return evaluate


def _precision(sums: Sums) -> Array:
    """The precision at each positive row, if all rows whose score is not lower are predicted positive."""
    import numpy as np

    chosen = sums.true_positives + sums.false_positives
    np.maximum(chosen, np.finfo(np.float64).tiny, out=chosen)
    precision: Array = np.divide(sums.true_positives, chosen, out=chosen)
    return precision
