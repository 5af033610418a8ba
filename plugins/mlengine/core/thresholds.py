"""The thresholds of a validation, as written in a DAG, a trigger form or a command line.

::

    {
        "roc_auc": {"min": 0.80, "max_regression": 0.005},
        "log_loss": {"max": 0.45},
        "slices": {"by": ["carrier"], "metric": "roc_auc", "min": 0.70, "min_rows": 200},
        "latency_ms": 20,
    }

A bare number is the minimum of a metric, or its maximum where less is better. Values may be strings, as a trigger form
and a template give them; an empty string and ``None`` disable the threshold.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

from mlengine.core.errors import MlengineError
from mlengine.core.metrics import DEFAULT_REGRESSION, MAIN_METRIC, info


class WhenUndecided(StrEnum):
    """What to do if the held-out set is too small to decide whether the challenger is worse than the champion."""

    REJECT = "reject"
    ACCEPT = "accept"


_MIN_ROWS = 100  # minimum number of rows of a slice whose metric is checked


@dataclass(frozen=True)
class MetricThreshold:
    """The thresholds of one metric.

    :param min: the smallest allowed value.
    :param max: the largest allowed value.
    :param max_regression: how much worse than the champion's the value may be, in the metric's unit; or, with
        ``relative``, as a share of the champion's value.
    :param compared: false if ``max_regression`` was given as ``None`` or an empty string: then the task's main metric
        has no default either.
    """

    min: float | None = None
    max: float | None = None
    max_regression: float | None = None
    relative: bool = False
    compared: bool = True

    def tolerance(self, champion: float) -> float:
        """The allowed regression in the metric's unit."""
        value = self.max_regression or 0.0
        return value * abs(champion) if self.relative else value

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {name: getattr(self, name) for name in ("min", "max") if getattr(self, name) is not None}
        if self.max_regression is not None:
            value = self.max_regression
            data["max_regression"] = f"{value * 100:g}%" if self.relative else value
        elif not self.compared:
            data["max_regression"] = None
        return data


@dataclass(frozen=True)
class SliceThreshold:
    """A threshold of one metric on each slice of the held-out set.

    :param by: the columns to slice by. Each value, or each bin of a numeric column, is a slice.
    :param min_rows: slices with fewer rows are not checked.
    """

    by: tuple[str, ...]
    metric: str
    min: float | None = None
    max: float | None = None
    min_rows: int = _MIN_ROWS

    def to_json(self) -> dict[str, Any]:
        data = {"by": list(self.by), "metric": self.metric, "min": self.min, "max": self.max, "min_rows": self.min_rows}
        return {name: value for name, value in data.items() if value is not None}


@dataclass(frozen=True)
class Thresholds:
    """The thresholds that a model must meet. ``None`` disables a check.

    :param metrics: the thresholds by metric (:mod:`mlengine.core.metrics`).
    :param slices: thresholds on parts of the held-out set.
    :param confidence: confidence level of comparisons with the champion, one-sided.
    :param undecided: what happens if the held-out set is too small to decide a comparison.
    :param latency_ms: maximum of the median time of a call with one row, in milliseconds, on the machine that
        validates.
    :param latency_ratio: maximum of that time divided by the champion's, both measured alternately in one process.
    :param size_bytes: maximum size of all files together.
    :param size_ratio: maximum of that size divided by the champion's.
    """

    metrics: Mapping[str, MetricThreshold] = field(default_factory=dict)
    slices: tuple[SliceThreshold, ...] = ()
    confidence: float = 0.95
    undecided: WhenUndecided = WhenUndecided.REJECT
    latency_ms: float | None = None
    latency_ratio: float | None = 3.0
    size_bytes: int | None = 2_000_000_000
    size_ratio: float | None = 3.0

    def for_task(self, task: str) -> Mapping[str, MetricThreshold]:
        """The thresholds by metric, with a comparison by the task's main metric if no metric has one.

        A main metric whose ``max_regression`` is explicitly ``None`` is not compared.

        :raises MlengineError: a metric belongs to another task.
        """
        for name in self.metrics:
            info(name, task)
        compared = any(item.max_regression is not None for item in self.metrics.values())
        if compared or task not in MAIN_METRIC:
            return self.metrics
        main = MAIN_METRIC[task]
        given = self.metrics.get(main, MetricThreshold())
        if not given.compared:
            return self.metrics
        share, relative = _regression(main, DEFAULT_REGRESSION[task])
        return {**self.metrics, main: MetricThreshold(given.min, given.max, share, relative)}

    def main_metric(self, task: str) -> str:
        """The metric that is shown first: the first that is compared with the champion's."""
        compared = [name for name, item in self.for_task(task).items() if item.max_regression is not None]
        return compared[0] if compared else ""

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {name: item.to_json() for name, item in self.metrics.items()}
        if self.slices:
            data["slices"] = [item.to_json() for item in self.slices]
        plain = ("confidence", "latency_ms", "latency_ratio", "size_bytes", "size_ratio")
        return {**data, **{name: getattr(self, name) for name in plain}, "undecided": self.undecided.value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Self:
        """Read thresholds from their JSON form.

        :raises MlengineError: a name is unknown, or a value is not a number in its range.
        """
        plain: dict[str, Any] = {}
        metrics: dict[str, MetricThreshold] = {}
        known = {item.name for item in fields(cls)} - {"metrics", "slices"}
        for name, value in (data or {}).items():
            if name in {"slices", "confidence", "undecided"} and _is_empty(value):
                continue
            if name == "slices":
                plain["slices"] = _slices(value)
            elif name in known:
                plain[name] = _plain(name, value)
            else:
                threshold = _metric(name, value)
                if threshold != MetricThreshold():
                    metrics[name] = threshold
        return cls(metrics=metrics, **plain)

    @classmethod
    def from_report(cls, data: Mapping[str, Any]) -> Self:
        """Read the thresholds in a report. Reports of version 0.1 have ``per_class`` and ``tolerance``."""
        data = dict(data)
        if not {"per_class", "tolerance"} & data.keys():
            return cls.from_json(data)
        least, tolerance = data.pop("per_class", None), data.pop("tolerance", None)
        data["accuracy"] = {"min": data.get("accuracy"), "max_regression": tolerance}
        return cls.from_json({**data, "worst_class_recall": least})


def _metric(name: str, value: Any) -> MetricThreshold:
    known = info(name)
    if not isinstance(value, Mapping):
        number = _number(name, value)
        return MetricThreshold(min=number) if known.higher_is_better else MetricThreshold(max=number)
    if unknown := sorted(set(value) - {"min", "max", "max_regression"}):
        raise MlengineError(
            f"threshold {name} has {', '.join(unknown)}", hint='write {"min": …, "max": …, "max_regression": …}'
        )
    least, most = (_number(f"{name}.{side}", value.get(side)) for side in ("min", "max"))
    if least is not None and most is not None and least > most:
        raise MlengineError(f"threshold {name}: min {least:g} is above max {most:g}", hint="exchange them")
    share, relative = _regression(name, value.get("max_regression"))
    return MetricThreshold(least, most, share, relative, compared=share is not None or "max_regression" not in value)


def _regression(name: str, value: Any) -> tuple[float | None, bool]:
    relative = isinstance(value, str) and value.strip().endswith("%")
    number = _number(f"{name}.max_regression", value.strip()[:-1] if relative else value)
    if number is not None and number < 0:
        raise MlengineError(f"threshold {name}.max_regression is negative: {value!r}", hint="write 0 or more")
    return (number / 100 if relative and number is not None else number), relative


def _slices(value: Any) -> tuple[SliceThreshold, ...]:
    if isinstance(value, str):  # from the command line: --threshold 'slices={"by": …}'
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    items = [value] if isinstance(value, Mapping) else value
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise MlengineError(f"threshold slices is {value!r}", hint='write {"by": ["column"], "metric": "accuracy", …}')
    found = []
    for item in items:
        names = {"by", "metric", "min", "max", "min_rows"}
        if not isinstance(item, Mapping) or not {"by", "metric"} <= item.keys() <= names:
            raise MlengineError(
                f"threshold slices has {item!r}", hint=f"each has {', '.join(sorted(names))}; by and metric are needed"
            )
        by = (item["by"],) if isinstance(item["by"], str) else item["by"]
        if not isinstance(by, Sequence):
            raise MlengineError(f"threshold slices.by is {by!r}", hint='write the columns: "by": ["carrier"]')
        by = tuple(str(name) for name in by)
        metric = str(item["metric"])
        info(metric)
        least, most = (_number(f"slices.{side}", item.get(side)) for side in ("min", "max"))
        rows = _number("slices.min_rows", item.get("min_rows"))
        if rows is not None and rows < 1:
            raise MlengineError(f"threshold slices.min_rows is {item['min_rows']!r}", hint="write 1 or more")
        found.append(SliceThreshold(by, metric, least, most, _MIN_ROWS if rows is None else int(rows)))
    return tuple(found)


def _plain(name: str, value: Any) -> Any:
    if name == "undecided":
        try:
            return WhenUndecided(str(value))
        except ValueError:
            raise MlengineError(f"threshold undecided={value!r}", hint="write reject or accept") from None
    number = _number(name, value)
    if name == "confidence" and (number is None or not 0.5 < number < 1):
        raise MlengineError(f"threshold confidence={value!r}", hint="write a number between 0.5 and 1, such as 0.95")
    if number is not None and number < 0:
        raise MlengineError(f"threshold {name} is negative: {value!r}", hint="write 0 or more")
    return int(number) if name == "size_bytes" and number is not None else number


def _is_empty(value: Any) -> bool:
    """Whether no value is given. An empty field of the trigger form is rendered as a string."""
    return value is None or (isinstance(value, str) and value.strip() in {"", "None", "none", "null"})


def _number(name: str, value: Any) -> float | None:
    if _is_empty(value):
        return None
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise MlengineError(f"threshold {name} is not a number: {value!r}", hint=f"write {name}: 0.97")
    return number
