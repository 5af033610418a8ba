"""The metrics that thresholds may name, with their tasks and whether more is better. Names are scikit-learn's.

A metric may have one parameter: ``recall@precision=0.9``. ``package.module:function`` is a user's function. The values
are computed by :mod:`mlengine.validation.metrics`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from mlengine.core.errors import MlengineError

BINARY, MULTICLASS, REGRESSION = "binary", "multiclass", "regression"
_CLASSES = (BINARY, MULTICLASS)
_USER = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")

# For each task, the metric by which a model is compared with the champion if no threshold names one.
MAIN_METRIC = {BINARY: "roc_auc", MULTICLASS: "accuracy", REGRESSION: "mean_absolute_error"}
# How much worse than the champion's that metric may be by default: in its unit, or as a share of the champion's value.
DEFAULT_REGRESSION = {BINARY: "0.005", MULTICLASS: "0.005", REGRESSION: "1%"}


# For each parameter: whether a number is valid, and which numbers are valid.
_PARAMETERS: dict[str, tuple[Callable[[float], bool], str]] = {
    "k": (lambda number: number >= 1 and number.is_integer(), "an integer from 1 on"),
    "beta": (lambda number: 0 < number < math.inf, "a number above 0"),
    **dict.fromkeys(("threshold", "precision", "recall"), (lambda number: 0 <= number <= 1, "a number from 0 to 1")),
    "quantile": (lambda number: 0 < number < 1, "a number between 0 and 1"),
}
_ABBREVIATIONS = {
    "auc": "roc_auc",
    "pr_auc": "average_precision",
    "mae": "mean_absolute_error",
    "mse": "mean_squared_error",
    "rmse": "root_mean_squared_error",
    "mape": "mean_absolute_percentage_error",
    "mcc": "matthews_corrcoef",
    "ece": "expected_calibration_error",
    "pinball": "mean_pinball_loss",
    "r2_score": "r2",
}


@dataclass(frozen=True)
class MetricInfo:
    """The properties of a metric.

    :param parameter: the name of the metric's parameter, if it has one.
    """

    name: str
    tasks: tuple[str, ...]
    higher_is_better: bool = True
    parameter: str = ""

    @property
    def written(self) -> str:
        return f"{self.name}@{self.parameter}=…" if self.parameter else self.name


def _infos() -> dict[str, MetricInfo]:
    both = [
        *("accuracy", "balanced_accuracy", "f1_macro", "f1_micro", "f1_weighted", "precision_macro"),
        *("precision_micro", "precision_weighted", "recall_macro", "recall_micro", "recall_weighted"),
        *("matthews_corrcoef", "cohen_kappa", "worst_class_recall"),
    ]
    found = [MetricInfo(name, _CLASSES) for name in both]
    found += [MetricInfo(name, (BINARY,)) for name in ("roc_auc", "average_precision", "f1", "precision", "recall")]
    found += [
        MetricInfo("log_loss", _CLASSES, higher_is_better=False),
        MetricInfo("brier_score", _CLASSES, higher_is_better=False),
        MetricInfo("expected_calibration_error", _CLASSES, higher_is_better=False),
        MetricInfo("roc_auc_ovr", (MULTICLASS,)),
        MetricInfo("roc_auc_ovo", (MULTICLASS,)),
        MetricInfo("top_k_accuracy", (MULTICLASS,), parameter="k"),
        MetricInfo("fbeta", (BINARY,), parameter="beta"),
    ]
    found += [
        MetricInfo(name, (BINARY,), parameter=parameter)
        for name, parameter in (
            *(("precision", "threshold"), ("recall", "threshold"), ("f1", "threshold")),
            *(("recall", "precision"), ("precision", "recall")),
        )
    ]
    errors = ("mean_absolute_error", "mean_squared_error", "root_mean_squared_error", "median_absolute_error")
    more = ("mean_absolute_percentage_error", "max_error", "mean_poisson_deviance", "mean_gamma_deviance")
    found += [MetricInfo(name, (REGRESSION,), higher_is_better=False) for name in (*errors, *more)]
    found += [
        MetricInfo("r2", (REGRESSION,)),
        MetricInfo("mean_pinball_loss", (REGRESSION,), higher_is_better=False, parameter="quantile"),
    ]
    return {f"{info.name}@{info.parameter}" if info.parameter else info.name: info for info in found}


METRICS = _infos()


def is_user_metric(name: str) -> bool:
    """Whether ``name`` is ``package.module:function``."""
    return bool(_USER.fullmatch(name))


def split_name(name: str) -> tuple[str, float | None]:
    """``recall@precision=0.9`` → (``recall@precision``, 0.9); ``roc_auc`` → (``roc_auc``, ``None``).

    :raises MlengineError: there is no such metric; the error suggests the nearest.
    """
    base, at, rest = name.partition("@")
    parameter, _, text = rest.partition("=")
    known = f"{base}@{parameter}" if at else base
    if known not in METRICS:
        raise unknown(name)
    if not at:
        return known, None
    try:
        number = float(text)
    except ValueError:
        raise MlengineError(f"metric {name!r} has no number", hint=f"write {METRICS[known].written}") from None
    valid, wanted = _PARAMETERS[parameter]
    if not valid(number):
        raise MlengineError(f"metric {name!r}: {parameter} is out of range", hint=f"write {wanted}")
    return known, number


def info(name: str, task: str = "") -> MetricInfo:
    """The properties of a metric, by its full name.

    :param task: if given, check that the metric is one of this task.
    :raises MlengineError: there is no such metric, or it belongs to another task.
    """
    if is_user_metric(name):
        return MetricInfo(name, (BINARY, MULTICLASS, REGRESSION))
    found = METRICS[split_name(name)[0]]
    if task and task not in found.tasks:
        raise MlengineError(
            f"metric {name!r} is of {' and '.join(found.tasks)}, and the task is {task}",
            hint=f"metrics of {task}: {', '.join(names_of(task))}",
        )
    return found


def names_of(task: str) -> list[str]:
    """The names of all metrics of a task, as thresholds write them."""
    return [item.written for item in METRICS.values() if task in item.tasks]


def unknown(name: str) -> MlengineError:
    """The error for a metric that does not exist."""
    written = {item.name: item.written for item in reversed(METRICS.values())}
    base = name.partition("@")[0].removeprefix("neg_")
    base = _ABBREVIATIONS.get(base.lower(), base)
    near = [written[one] for one in difflib.get_close_matches(base, written, 1)]
    hint = f"did you mean {near[0]}?" if near else f"metrics: {', '.join(item.written for item in METRICS.values())}"
    return MlengineError(f"unknown metric or threshold: {name}", hint=hint)


def format_value(value: float) -> str:
    """A value formatted for people: four significant digits, and no exponent from 10,000 on (``123,457``)."""
    value += 0.0  # -0.0 becomes 0.0
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def format_difference(value: float) -> str:
    """A difference formatted as by :func:`format_value`, with its sign."""
    return f"{'+' if value >= 0 else ''}{format_value(value)}"
