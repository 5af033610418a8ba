"""Computes the data for the plots of a report, as JSON whose size does not depend on the number of rows and classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlengine.validation.metrics.outcomes import Outcomes, UndefinedMetricError
from mlengine.validation.metrics.ranking import falling

if TYPE_CHECKING:
    from mlengine.validation.metrics.outcomes import Array

POINTS = 100  # points of a curve
BINS = 10  # bins of a calibration plot
CELLS = 30  # bins of a histogram, for each axis
OUTER = 0.005  # share of the rows at each end that do not widen a plot of a regression
MOST_CLASSES = 30  # classes in a confusion matrix: those with the most rows


def curves(outcomes: Outcomes) -> dict[str, Any]:
    """The data for the plots of the task; empty if the task has none, or predictions are missing."""
    try:
        if outcomes.task == "binary":
            return _binary(outcomes)
        if outcomes.task == "multiclass":
            return {"confusion": confusion(outcomes)}
        if outcomes.task == "regression":
            return _regression(outcomes)
    except UndefinedMetricError:
        pass
    return {}


def _binary(outcomes: Outcomes) -> dict[str, Any]:
    import numpy as np

    values, positive = outcomes.need_values(), outcomes.target == 1
    found: dict[str, Any] = {"calibration": _calibration(values, positive, outcomes.weights)}
    found["thresholds"] = _threshold_table(values, positive, outcomes.weights)
    if positive.all() or not positive.any():
        return found
    order = falling(outcomes)
    last = np.flatnonzero(np.diff(values[order], append=-1.0))  # the last row of each group of equal probability
    hits = np.cumsum((outcomes.weights * positive)[order])[last]
    chosen = np.cumsum(outcomes.weights[order])[last]
    at = _spread(len(last))
    hits, chosen, total, all_hits = hits[at], chosen[at], chosen[-1], hits[-1]
    recall, false_rate = hits / all_hits, (chosen - hits) / (total - all_hits)
    precision = hits / np.maximum(chosen, np.finfo(float).tiny)
    found["roc"] = {"false_positive_rate": _list(false_rate), "recall": _list(recall)}
    found["precision_recall"] = {"recall": _list(recall), "precision": _list(precision)}
    return found


def _calibration(values: Array, positive: Array, weights: Array) -> list[dict[str, float]]:
    """The mean probability and the frequency in each bin that has rows. Bins have equal width."""
    import numpy as np

    place = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    rows, mean, hits = (np.bincount(place, weights * part, BINS) for part in (np.ones(len(values)), values, positive))
    return [
        {
            "probability": round(mean[at] / rows[at], 6),
            "frequency": round(hits[at] / rows[at], 6),
            "rows": float(rows[at]),
        }
        for at in range(BINS)
        if rows[at] > 0
    ]


def _threshold_table(values: Array, positive: Array, weights: Array) -> list[dict[str, float | None]]:
    """The precision and recall at thresholds from 0.1 to 0.9."""
    import numpy as np

    steps = [step / 10 for step in range(1, 10)]
    # Count the thresholds that each row reaches, then add up the weights of the rows that reach at least that number.
    place = np.searchsorted(steps, values, side="right")
    reached, reached_positive = (
        np.bincount(place, part, len(steps) + 1)[::-1].cumsum()[::-1] for part in (weights, weights * positive)
    )
    table: list[dict[str, float | None]] = []
    for at, threshold in enumerate(steps, 1):
        hits, predicted = float(reached_positive[at]), float(reached[at])
        rows = float(reached_positive[0])
        table.append(
            {
                "threshold": threshold,
                "precision": round(hits / predicted, 6) if predicted else None,
                "recall": round(hits / rows, 6) if rows else None,
                "predicted": round(predicted / float(reached[0]), 6),
            }
        )
    return table


def confusion(outcomes: Outcomes) -> dict[str, Any]:
    """The confusion matrix of the most frequent classes; the other classes are added up as one."""
    import numpy as np

    predicted = outcomes.need_classes()
    counts = np.bincount(outcomes.target, minlength=outcomes.class_count)
    shown = np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES])
    place = np.full(max(outcomes.class_count, int(predicted.max()) + 1), len(shown))
    place[shown] = np.arange(len(shown))
    size = len(shown) + 1
    columns = np.where(predicted >= 0, place[predicted], len(shown))
    cells = np.bincount(place[outcomes.target] * size + columns, minlength=size * size).reshape(size, size)
    others = bool(cells[-1].any() or cells[:, -1].any())
    return {"classes": shown.tolist(), "others": others, "rows": (cells if others else cells[:-1, :-1]).tolist()}


def _regression(outcomes: Outcomes) -> dict[str, Any]:
    """The data for the plots of a regression. Rows outside the span of a plot are counted in its outermost cells."""
    import numpy as np

    values, target = outcomes.need_values(), outcomes.target
    residuals = values - target
    low, high = _span(residuals)
    counts, edges = np.histogram(residuals.clip(low, high), CELLS, (low, high))
    low, high = _span(np.concatenate([values, target]))
    cells, *_ = np.histogram2d(target.clip(low, high), values.clip(low, high), CELLS, [[low, high], [low, high]])
    return {
        "residuals": {"edges": edges.tolist(), "rows": counts.tolist()},
        "predicted_by_actual": {"low": low, "high": high, "rows": cells.astype(int).tolist()},
    }


def _span(values: Array) -> tuple[float, float]:
    """The lowest and the highest value, without outliers that would leave most of a plot empty."""
    import numpy as np

    least, most = float(values.min()), float(values.max())
    low, high = (float(value) for value in np.quantile(values, (OUTER, 1 - OUTER)))
    if low == high:
        low, high = least, most
    if low == high:
        margin = abs(low) * 0.01 or 0.5
        return low - margin, high + margin
    margin = (high - low) / CELLS
    return max(least, low - margin), min(most, high + margin)


def _spread(count: int) -> Array:
    """At most :data:`POINTS` of ``count`` positions, including the first and the last."""
    import numpy as np

    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(np.int64))


def _list(values: Array) -> list[float]:
    return [float(f"{value:.7g}") for value in values]
