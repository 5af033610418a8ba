"""Metrics of a regression, with scikit-learn's definitions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlengine.validation.metrics.classification import mean_of
from mlengine.validation.metrics.outcomes import Evaluate, Outcomes, UndefinedMetricError, dot

if TYPE_CHECKING:
    from mlengine.validation.metrics.outcomes import Array


def mean_absolute_error(outcomes: Outcomes) -> Evaluate:
    return mean_of(abs(outcomes.need_values() - outcomes.target))


def mean_squared_error(outcomes: Outcomes) -> Evaluate:
    return mean_of((outcomes.need_values() - outcomes.target) ** 2)


def root_mean_squared_error(outcomes: Outcomes) -> Evaluate:
    square = mean_squared_error(outcomes)
    return lambda weights: math.sqrt(square(weights))


def mean_absolute_percentage_error(outcomes: Outcomes) -> Evaluate:
    import numpy as np

    least = np.maximum(np.abs(outcomes.target), np.finfo(np.float64).eps)
    return mean_of(np.abs(outcomes.need_values() - outcomes.target) / least)


def mean_pinball_loss(outcomes: Outcomes, quantile: float) -> Evaluate:
    import numpy as np

    over = outcomes.target - outcomes.need_values()
    return mean_of(np.where(over >= 0, quantile * over, (quantile - 1) * over))


def mean_poisson_deviance(outcomes: Outcomes) -> Evaluate:
    import numpy as np

    values, target = outcomes.need_values(), outcomes.target
    if (values <= 0).any() or (target < 0).any():
        raise UndefinedMetricError("the Poisson deviance needs positive predictions and targets that are not negative")
    ratio = np.where(target > 0, target, 1) / values
    return mean_of(2 * (np.where(target > 0, target * np.log(ratio), 0) - target + values))


def mean_gamma_deviance(outcomes: Outcomes) -> Evaluate:
    import numpy as np

    values, target = outcomes.need_values(), outcomes.target
    if (values <= 0).any() or (target <= 0).any():
        raise UndefinedMetricError("the gamma deviance needs positive predictions and targets")
    return mean_of(2 * (np.log(values / target) + target / values - 1))


def median_absolute_error(outcomes: Outcomes) -> Evaluate:
    """The median of the absolute errors: the middle value, or the mean of the two middle values."""
    import numpy as np

    errors = np.abs(outcomes.need_values() - outcomes.target)
    order = np.argsort(errors, kind="stable")
    errors = errors[order]

    def evaluate(weights: Array) -> float:
        ordered = weights[order]
        below = ordered.cumsum()
        half = below[-1] / 2
        low = int(np.searchsorted(below, half * (1 - 1e-12)))
        if abs(below[low] - half) > 1e-9 * half:
            return float(errors[low])
        after = np.flatnonzero(ordered[low + 1 :] > 0)
        return float(errors[low] + errors[low + 1 + int(after[0])]) / 2 if len(after) else float(errors[low])

    return evaluate


def max_error(outcomes: Outcomes) -> Evaluate:
    import numpy as np

    errors = np.abs(outcomes.need_values() - outcomes.target)
    return lambda weights: float(errors[weights > 0].max())


def r2(outcomes: Outcomes) -> Evaluate:
    import numpy as np

    values, target = outcomes.need_values(), outcomes.target
    if outcomes.rows < 2 or (target == target[0]).all():
        raise UndefinedMetricError("all targets are equal")
    squares = (values - target) ** 2

    def evaluate(weights: Array) -> float:
        mean = dot(weights, target) / float(weights.sum(dtype=np.float64))
        spread = dot(weights, (target - mean) ** 2)
        return 1 - dot(weights, squares) / spread if spread > 0 else float("nan")

    return evaluate
