"""Metrics of the order of probabilities: rows are sorted once, and each evaluation is a pass over the sorted rows.

Rows of equal probability form a group, which has one place in the order.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlengine.validation.metrics.outcomes import Evaluate, Outcomes, UndefinedMetricError, dot

if TYPE_CHECKING:
    from mlengine.validation.metrics.outcomes import Array

MOST_PAIRED_CLASSES = 100  # of roc_auc_ovo, whose time grows with the number of pairs


@dataclass(frozen=True)
class Groups:
    """The weights of positive and negative rows in each group, and their cumulative sums."""

    positive: Array
    negative: Array
    positive_sum: Array
    negative_sum: Array


class Ranking:
    """The rows by falling score, in groups of equal score.

    :param positive: (rows,): which rows are of the positive class.
    """

    def __init__(self, scores: Array, positive: Array) -> None:
        import numpy as np

        self.order = np.argsort(-scores, kind="stable")
        ordered = scores[self.order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        self.starts = starts if len(starts) < len(scores) else None
        self.positive = positive[self.order].astype(np.float32)
        self._latest = threading.local()

    def groups(self, weights: Array) -> Groups:
        """The groups for these weights. Several metrics of one resample share them."""
        if getattr(self._latest, "weights", None) is not weights:
            self._latest.groups, self._latest.weights = self._groups(weights), weights
        return self._latest.groups  # type: ignore[no-any-return]

    def _groups(self, weights: Array) -> Groups:
        import numpy as np

        ordered = weights.take(self.order, mode="clip")
        positive = ordered * self.positive
        negative = ordered - positive
        if self.starts is not None:
            positive, negative = (np.add.reduceat(part, self.starts, dtype=np.float64) for part in (positive, negative))
        return Groups(positive, negative, positive.cumsum(dtype=np.float64), negative.cumsum(dtype=np.float64))


def _ranking(outcomes: Outcomes) -> Ranking:
    if "ranking" not in outcomes.shared:
        positive = outcomes.target == 1
        if not positive.any():
            raise UndefinedMetricError(f"none of the {outcomes.rows} rows is of the positive class")
        outcomes.shared["ranking"] = Ranking(outcomes.need_values(), positive)
    return outcomes.shared["ranking"]  # type: ignore[no-any-return]


def area_under_roc(ranking: Ranking) -> Evaluate:
    def evaluate(weights: Array) -> float:
        groups = ranking.groups(weights)
        positives, negatives = float(groups.positive_sum[-1]), float(groups.negative_sum[-1])
        if positives <= 0 or negatives <= 0:
            return float("nan")
        # A positive row loses against the negative ones before it, and half against those of its own group.
        lost = dot(groups.positive, groups.negative_sum) - dot(groups.positive, groups.negative) / 2
        return 1 - lost / (positives * negatives)

    return evaluate


def roc_auc(outcomes: Outcomes) -> Evaluate:
    if (outcomes.target == outcomes.target[0]).all():
        raise UndefinedMetricError(f"all {outcomes.rows} rows are of one class")
    return area_under_roc(_ranking(outcomes))


def roc_auc_ovr(outcomes: Outcomes) -> Evaluate:
    """The mean area of each class against all others; all classes must have rows."""
    values, target = outcomes.need_values(), outcomes.target
    areas = []
    for one in range(outcomes.class_count):
        positive = target == one
        if positive.all() or not positive.any():
            raise UndefinedMetricError(f"class number {one} has {'all' if positive.any() else 'no'} rows")
        areas.append(area_under_roc(Ranking(values[:, one], positive)))
    return lambda weights: sum(area(weights) for area in areas) / len(areas)


def roc_auc_ovo(outcomes: Outcomes) -> Evaluate:
    """The mean area of each class against each other, among the rows of the two; of classes that have rows."""
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
        hits, precision = _precision(ranking, weights)
        total = hits.sum()
        return dot(hits, precision) / float(total) if total > 0 else float("nan")

    return evaluate


def recall_at_precision(outcomes: Outcomes, least: float) -> Evaluate:
    """The largest recall of a threshold whose precision is at least ``least``; 0 if there is none."""
    ranking = _ranking(outcomes)

    def evaluate(weights: Array) -> float:
        hits, precision = _precision(ranking, weights)
        recall = hits.cumsum()
        reached = recall[precision >= least]
        return float(reached.max() / recall[-1]) if len(reached) and recall[-1] > 0 else 0.0

    return evaluate


def precision_at_recall(outcomes: Outcomes, least: float) -> Evaluate:
    """The largest precision of a threshold whose recall is at least ``least``."""
    ranking = _ranking(outcomes)

    def evaluate(weights: Array) -> float:
        hits, precision = _precision(ranking, weights)
        recall = hits.cumsum()
        return float(precision[recall >= least * recall[-1]].max()) if recall[-1] > 0 else float("nan")

    return evaluate


def _precision(ranking: Ranking, weights: Array) -> tuple[Array, Array]:
    """The positive weight of each group, and the precision if all groups up to it are chosen."""
    import numpy as np

    groups = ranking.groups(weights)
    hits = groups.positive_sum
    chosen = hits + groups.negative_sum
    return groups.positive, hits / np.maximum(chosen, np.finfo(np.float64).tiny)
