"""The predictions of one model with the true values, from which every metric is computed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    from mlengine.validation.predictions import Predictions

    Array: TypeAlias = np.ndarray[Any, Any]

# A function from the weights of the rows to the metric's value, which is NaN if it is undefined. Weights are float64,
# or those of a resample: how often each row was drawn (uint8), times the row's weight if it has one (float32).
Evaluate: TypeAlias = "Callable[[Array], float]"


_CHUNK = 8192


def dot(left: Array, right: Array) -> float:
    """The dot product, computed without BLAS threads: on a busy machine, they busy-wait for each other.

    Single precision is sufficient for a chunk; chunks are added in double precision.
    """
    import numpy as np

    whole = len(left) // _CHUNK * _CHUNK
    chunks = np.einsum("ij,ij->i", left[:whole].reshape(-1, _CHUNK), right[:whole].reshape(-1, _CHUNK))
    rest = np.einsum("i,i->", left[whole:], right[whole:])
    return float(chunks.sum(dtype=np.float64)) + float(rest)


class Sum:
    """The weighted sum of a number for each row. For resamples, it uses single precision, which is twice as fast."""

    def __init__(self, values: Array) -> None:
        import numpy as np

        self._double = np.asarray(values, np.float64)
        self._single = self._double.astype(np.float32)

    def __call__(self, weights: Array) -> float:
        if weights.dtype == self._double.dtype:
            return dot(weights, self._double)
        return dot(_as_single(weights), self._single)


_latest = threading.local()


def _as_single(weights: Array) -> Array:
    """The weights in single precision. All sums of one resample share them."""
    import numpy as np

    if getattr(_latest, "weights", None) is not weights:
        _latest.single, _latest.weights = weights.astype(np.float32, copy=False), weights
    return _latest.single  # type: ignore[no-any-return]


class UndefinedMetricError(ValueError):
    """The metric has no value for these outcomes; the message has the reason."""


@dataclass(frozen=True)
class Outcomes:
    """Rows with their true and predicted values.

    :param target: (rows,): class indices, or the values of a regression.
    :param values: binary (rows,): the probability of class 1; multiclass (rows, classes): probabilities; regression
        (rows,): values. ``None`` if only classes are known. NaN means that the model returned no finite number.
    :param predicted: classification (rows,): class indices, -1 for none.
    :param weight: (rows,): the weight of each row; ``None`` without weights.
    :param class_count: classification: the number of the dataset's classes.
    """

    task: str
    target: Array
    values: Array | None
    predicted: Array | None = None
    weight: Array | None = None
    class_count: int = 0

    @classmethod
    def of(cls, predictions: Predictions) -> Self:
        """The outcomes of stored predictions.

        :raises UndefinedMetricError: the dataset has no target.
        """
        import numpy as np

        if predictions.target is None:
            raise UndefinedMetricError("the dataset has no target")
        predicted = predictions.predicted
        if predictions.task == "binary" and predicted is None and predictions.values is not None:
            known = ~np.isnan(predictions.values)
            predicted = np.where(known, predictions.values >= 0.5, -1).astype(np.int64)
        count = len(predictions.classes)
        if not count and predicted is not None and len(predicted):
            count = int(max(predictions.target.max(), predicted.max())) + 1
        return cls(predictions.task, predictions.target, predictions.values, predicted, predictions.weight, count)

    @cached_property
    def shared(self) -> dict[str, Any]:
        """A cache for data that several metrics derive from the outcomes, such as the sorted rows."""
        return {}

    @property
    def rows(self) -> int:
        return len(self.target)

    @cached_property
    def weights(self) -> Array:
        import numpy as np

        return np.ones(self.rows) if self.weight is None else self.weight

    def take(self, rows: Array) -> Self:
        """The outcomes of some of the rows, which are given as indices or a mask."""
        values, predicted, weight = (
            None if part is None else part[rows] for part in (self.values, self.predicted, self.weight)
        )
        return replace(self, target=self.target[rows], values=values, predicted=predicted, weight=weight)

    def need_values(self) -> Array:
        """The predicted values.

        :raises UndefinedMetricError: there are no values, or not for each row.
        """
        import numpy as np

        if self.values is None:
            raise UndefinedMetricError("only the predicted classes are known, and this metric needs probabilities")
        if np.isnan(self.values).any():
            raise UndefinedMetricError("some predictions are not finite")
        return self.values

    def need_classes(self) -> Array:
        """The predicted classes.

        :raises UndefinedMetricError: the predicted classes are not known.
        """
        if self.predicted is None:
            raise UndefinedMetricError("the predicted classes are not known")
        return self.predicted
