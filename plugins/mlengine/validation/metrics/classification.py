"""Metrics of predicted classes, and means of a loss by row, with scikit-learn's definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlengine.validation.metrics.outcomes import Evaluate, Outcomes, Sum

if TYPE_CHECKING:
    from mlengine.validation.metrics.outcomes import Array


ROUNDING = 1e-12


def mean_of(loss: Array) -> Evaluate:
    """The weighted mean of a loss that is given for each row."""
    total = Sum(loss)
    return lambda weights: total(weights) / float(weights.sum(dtype="float64"))


def accuracy(outcomes: Outcomes) -> Evaluate:
    return mean_of((outcomes.need_classes() == outcomes.target).astype(float))


def log_loss(outcomes: Outcomes) -> Evaluate:
    import numpy as np

    values = outcomes.need_values()
    if outcomes.task == "binary":
        right = np.where(outcomes.target == 1, values, 1 - values)
    else:
        right = values[np.arange(outcomes.rows), outcomes.target] / values.sum(axis=1)
    epsilon = np.finfo(np.float64).eps
    return mean_of(-np.log(np.clip(right, epsilon, 1 - epsilon)))


def brier_score(outcomes: Outcomes) -> Evaluate:
    """The Brier score. Binary: the squared error of the probability; multiclass: its sum over all classes."""
    import numpy as np

    values = outcomes.need_values()
    if outcomes.task == "binary":
        return mean_of((values - (outcomes.target == 1)) ** 2)
    right = values[np.arange(outcomes.rows), outcomes.target]
    return mean_of(np.einsum("ij,ij->i", values, values) - right**2 + (1 - right) ** 2)


def top_k_accuracy(outcomes: Outcomes, k: float) -> Evaluate:
    """The share of rows whose target is among the ``k`` most probable classes; of ties, the later ranks higher."""
    import numpy as np

    values = outcomes.need_values()
    own = values[np.arange(outcomes.rows), outcomes.target][:, None]
    later = np.arange(values.shape[1]) > outcomes.target[:, None]
    above = ((values > own) | ((values == own) & later)).sum(axis=1)
    return mean_of((above < int(k)).astype(float))


class ClassCounts:
    """The weights of true positives, predictions and rows of each class. Time is linear in the number of classes."""

    def __init__(self, outcomes: Outcomes) -> None:
        self.count = max(outcomes.class_count, 1)
        self.target = outcomes.target
        self.hit = outcomes.need_classes() == outcomes.target
        # A row without a prediction counts as one of an additional class.
        self.predicted = outcomes.need_classes() % (self.count + 1)

    def of(self, weights: Array) -> tuple[Array, Array, Array]:
        import numpy as np

        hits = np.bincount(self.target, weights * self.hit, self.count)
        predicted = np.bincount(self.predicted, weights, self.count + 1)[: self.count]
        return hits, predicted, np.bincount(self.target, weights, self.count)


def balanced_accuracy(outcomes: Outcomes) -> Evaluate:
    """The mean recall of the classes that have rows."""
    return _recalls(outcomes, lambda recalls: float(recalls.mean()))


def worst_class_recall(outcomes: Outcomes) -> Evaluate:
    """The lowest recall of a class that has rows."""
    return _recalls(outcomes, lambda recalls: float(recalls.min()))


def _recalls(outcomes: Outcomes, reduce: Evaluate) -> Evaluate:
    counts = ClassCounts(outcomes)

    def evaluate(weights: Array) -> float:
        hits, _, rows = counts.of(weights)
        present = rows > 0
        return reduce(hits[present] / rows[present])

    return evaluate


def averaged(outcomes: Outcomes, kind: str, average: str) -> Evaluate:
    """The average precision, recall or F1 of the classes.

    :param kind: ``precision``, ``recall`` or ``f1``; if it is undefined for a class, it is 0.
    :param average: ``macro`` over classes that have rows or predictions, ``weighted`` by rows, or ``micro``.
    """
    import numpy as np

    counts = ClassCounts(outcomes)

    def evaluate(weights: Array) -> float:
        hits, predicted, rows = counts.of(weights)
        if average == "micro":
            hits, predicted, rows = (part.sum(keepdims=True) for part in (hits, predicted, rows))
        tops, bottoms = {
            "precision": (hits, predicted),
            "recall": (hits, rows),
            "f1": (2 * hits, predicted + rows),
        }[kind]
        values = np.divide(tops, bottoms, out=np.zeros_like(hits), where=bottoms > 0)
        if average == "weighted":
            return float(values @ rows / rows.sum())
        present = (rows > 0) | (predicted > 0)
        return float(values[present].mean())

    return evaluate


def at_threshold(outcomes: Outcomes, kind: str, threshold: float = 0.5, beta: float = 1.0) -> Evaluate:
    """The precision, recall or F-beta of the second class, predicted if its probability is at least ``threshold``."""
    chosen = outcomes.need_values() >= threshold
    positive = outcomes.target == 1
    hits, choices, positives = Sum(chosen & positive), Sum(chosen), Sum(positive)
    square = beta * beta

    def evaluate(weights: Array) -> float:
        true_positives, predicted, rows = hits(weights), choices(weights), positives(weights)
        top, bottom = {
            "precision": (true_positives, predicted),
            "recall": (true_positives, rows),
            "fbeta": ((1 + square) * true_positives, square * rows + predicted),
        }[kind]
        return top / bottom if bottom > 0 else float("nan")

    return evaluate


def matthews_corrcoef(outcomes: Outcomes) -> Evaluate:
    import numpy as np

    counts = ClassCounts(outcomes)

    def evaluate(weights: Array) -> float:
        hits, predicted, rows = counts.of(weights)
        total = weights.sum()
        hits, predicted, rows = hits / total, predicted / total, rows / total
        spreads = 1 - predicted @ predicted, 1 - rows @ rows
        if min(spreads) < ROUNDING:  # all rows, or all predictions, are of one class
            return 0.0
        return float((hits.sum() - predicted @ rows) / np.sqrt(spreads[0] * spreads[1]))

    return evaluate


def cohen_kappa(outcomes: Outcomes) -> Evaluate:
    counts = ClassCounts(outcomes)

    def evaluate(weights: Array) -> float:
        hits, predicted, rows = counts.of(weights)
        total = weights.sum()
        chance = predicted @ rows / total**2
        return float((hits.sum() / total - chance) / (1 - chance)) if chance < 1 - ROUNDING else float("nan")

    return evaluate


def expected_calibration_error(outcomes: Outcomes, bins: int = 10) -> Evaluate:
    """The mean difference between probability and frequency over bins of equal width, weighted by rows.

    Binary: for the positive class; multiclass: for the class with the highest probability.
    """
    import numpy as np

    values = outcomes.need_values()
    hit = outcomes.target == 1
    if outcomes.task != "binary":
        hit, values = values.argmax(axis=1) == outcomes.target, values.max(axis=1)
    place = np.clip((values * bins).astype(np.int64), 0, bins - 1)
    gap = values - hit
    return lambda weights: float(np.abs(np.bincount(place, weights * gap, bins)).sum() / weights.sum())
