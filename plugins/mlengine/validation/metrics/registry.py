"""Computes a metric by its name."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import MlengineError
from mlengine.core.metrics import MetricInfo, info, is_user_metric, split_name
from mlengine.validation.metrics import classification, ranking, regression
from mlengine.validation.metrics.outcomes import Evaluate, Outcomes, UndefinedMetricError

if TYPE_CHECKING:
    from mlengine.validation.metrics.outcomes import Array

log = logging.getLogger(__name__)

_PLAIN: dict[str, Any] = {
    **{
        name: getattr(classification, name)
        for name in (
            *("accuracy", "log_loss", "brier_score", "balanced_accuracy", "worst_class_recall", "matthews_corrcoef"),
            *("cohen_kappa", "expected_calibration_error"),
        )
    },
    **{name: getattr(ranking, name) for name in ("roc_auc", "roc_auc_ovr", "roc_auc_ovo", "average_precision")},
    **{
        name: getattr(regression, name)
        for name in (
            *("mean_absolute_error", "mean_squared_error", "root_mean_squared_error", "median_absolute_error"),
            *("mean_absolute_percentage_error", "max_error", "mean_poisson_deviance", "mean_gamma_deviance", "r2"),
        )
    },
    **{
        f"{kind}_{average}": partial(classification.averaged, kind=kind, average=average)
        for kind in ("precision", "recall", "f1")
        for average in ("macro", "micro", "weighted")
    },
    "precision": partial(classification.at_threshold, kind="precision"),
    "recall": partial(classification.at_threshold, kind="recall"),
    "f1": partial(classification.at_threshold, kind="fbeta"),
}
# The metric's parameter is the second argument of its function, or the keyword argument of that name.
_WITH_PARAMETER: dict[str, Any] = {
    "top_k_accuracy@k": classification.top_k_accuracy,
    "fbeta@beta": lambda outcomes, value: classification.at_threshold(outcomes, "fbeta", beta=value),
    "precision@threshold": lambda outcomes, value: classification.at_threshold(outcomes, "precision", value),
    "recall@threshold": lambda outcomes, value: classification.at_threshold(outcomes, "recall", value),
    "f1@threshold": lambda outcomes, value: classification.at_threshold(outcomes, "fbeta", value),
    "recall@precision": ranking.recall_at_precision,
    "precision@recall": ranking.precision_at_recall,
    "mean_pinball_loss@quantile": regression.mean_pinball_loss,
}


@dataclass(frozen=True)
class Value:
    """A metric's value.

    :param number: the value; ``None`` if it is undefined. Then ``undefined`` has the reason.
    """

    number: float | None
    undefined: str = ""


def prepare(name: str, outcomes: Outcomes) -> Evaluate:
    """A function from weights of the rows to the metric's value. Work that does not depend on weights is done here.

    :raises UndefinedMetricError: the metric has no value for these outcomes, whatever the weights.
    :raises MlengineError: there is no such metric, or it is of another task.
    """
    if not outcomes.rows:
        raise UndefinedMetricError("there are no rows")
    if not outcomes.weights.any():
        raise UndefinedMetricError("the weights of all rows are 0")
    if is_user_metric(name):
        return _user(name, outcomes)
    info(name, outcomes.task)
    known, parameter = split_name(name)
    evaluate: Evaluate = _PLAIN[known](outcomes) if parameter is None else _WITH_PARAMETER[known](outcomes, parameter)
    return evaluate


def compute(name: str, outcomes: Outcomes) -> Value:
    """The metric's value on the rows, with their weights."""
    try:
        number = prepare(name, outcomes)(outcomes.weights)
    except UndefinedMetricError as error:
        return Value(None, str(error))
    return Value(number) if math.isfinite(number) else Value(None, _why(name, number))


def compute_all(names: Iterable[str], outcomes: Outcomes) -> dict[str, Value]:
    return {name: compute(name, outcomes) for name in names}


def user_info(name: str) -> MetricInfo:
    """The information on a metric, see :func:`~mlengine.core.metrics.info`.

    For a user's function, a lower value is better if the function has ``higher_is_better = False``.
    """
    found = info(name)
    if not is_user_metric(name):
        return found
    return MetricInfo(name, found.tasks, bool(getattr(_function(name), "higher_is_better", True)))


def _user(name: str, outcomes: Outcomes) -> Evaluate:
    """The evaluation of a user's metric: ``function(target, prediction, weight)`` returns a number."""
    function = _function(name)
    prediction = outcomes.values if outcomes.values is not None else outcomes.predicted

    def evaluate(weights: Array) -> float:
        try:
            # A resample's weights are 8-bit integers, whose products could overflow in a user's function.
            return float(function(outcomes.target, prediction, weights.astype(float)))
        except Exception as error:
            log.warning("metric %s raised", name, exc_info=True)
            raise UndefinedMetricError(f"it raised {type(error).__name__}: {error}") from error

    return evaluate


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise MlengineError(
            f"metric {name} cannot be imported: {error}", hint="it must be importable where Airflow runs its tasks"
        ) from error


def _why(name: str, number: float) -> str:
    if is_user_metric(name):
        return f"it returned {number}"
    return "no row is predicted positive" if name.startswith("precision") else "the rows do not determine it"
