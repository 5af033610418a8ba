"""Measures a predictor: its outputs for all held-out rows, its consistency, and its latency."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

from .rows import Batch, Rows

ALONE = 8  # rows that are also scored one at a time
COMPANY = 64  # rows that are scored in two orders
WARM, CALLS = 5, 40  # calls of each predictor before, and calls for, the measurement of the latency
LATENCY_ROWS = 8  # rows with which the latency is measured
EDGE_KEYS = [0, 1, -1, -5, 7, 2**31, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)]
MAX_VALUES = 250_000_000  # limit of the outputs of all rows together


class Outputs:
    """Calls a predictor and returns its outputs as a float64 matrix: (rows, values).

    :param output: the output to use, if a predictor returns several.
    """

    def __init__(self, predictor: Any, output: str | None) -> None:
        import numpy as np

        self.np, self.predictor, self.output = np, predictor, output
        # These are the columns that the predictor reads. A predictor that reads none still needs the number of rows.
        self.columns: list[str] | None = getattr(predictor, "columns", None) or None

    def __call__(self, batch: Batch) -> Any:
        """The outputs for a batch.

        :raises ValueError: the predictor does not return one row of numbers for each row.
        """
        rows = _rows(batch)
        size = self.predictor.batch_size
        if size is None or size == rows:
            return self._matrix(self.predictor.predict(batch), rows)
        return self.np.concatenate([self._fixed(batch, at, min(at + size, rows), size) for at in range(0, rows, size)])

    def _fixed(self, batch: Batch, start: int, stop: int, size: int) -> Any:
        """A batch of the only size that the model accepts. The last row is repeated to fill it."""
        indices = [min(row, stop - 1) for row in range(start, start + size)]
        part = {name: values[indices] for name, values in batch.items()}
        return self._matrix(self.predictor.predict(part), size)[: stop - start]

    def _matrix(self, answer: Any, rows: int) -> Any:
        np = self.np
        values = np.asarray(self._chosen(answer))
        if values.dtype.kind not in "fiub":
            raise ValueError(f"the predictions are {values.dtype.name}, not numbers")
        if values.ndim == 0 or len(values) != rows:
            raise ValueError(f"{rows} rows gave predictions of shape {list(values.shape)}")
        if values.ndim > 2:
            flat = values.reshape(rows, -1)
            if flat.shape[1] != max(values.shape[1:]):
                raise ValueError(f"a row has predictions of shape {list(values.shape[1:])}; a list is needed")
            values = flat
        return values.reshape(rows, -1).astype(np.float64)

    def _chosen(self, answer: Any) -> Any:
        if not isinstance(answer, dict):
            return answer
        if self.output is not None:
            if self.output not in answer:
                raise ValueError("there is no output {!r}; there are {}".format(self.output, ", ".join(answer)))
            return answer[self.output]
        if len(answer) == 1:
            return next(iter(answer.values()))
        floats = [name for name, value in answer.items() if self.np.asarray(value).dtype.kind == "f"]
        if len(floats) == 1:
            return answer[floats[0]]
        raise ValueError(
            "the model has the outputs {}: say which holds the predictions: serving_signature={{'output': '…'}}".format(
                ", ".join(answer)
            )
        )


def score(outputs: Outputs, rows: Rows, size: int | None) -> Any:
    """The outputs of all rows, with ``size`` rows per call."""
    np, result = outputs.np, None
    size = size or rows.batch_size(outputs.columns)
    for start in range(0, rows.count, size):
        stop = min(start + size, rows.count)
        part = outputs(rows.batch(start, stop, outputs.columns))
        if result is None:
            if part.shape[1] * rows.count > MAX_VALUES:
                raise ValueError(
                    f"{part.shape[1]} predictions for each of {rows.count} rows are more than {MAX_VALUES} in all;"
                    " give a scorer that returns fewer"
                )
            result = np.empty((rows.count, part.shape[1]))
        if part.shape[1] != result.shape[1]:
            raise ValueError(f"some rows have {result.shape[1]} predictions, others {part.shape[1]}")
        result[start:stop] = part
    return result


def check_batches(outputs: Outputs, rows: Rows) -> dict[str, Any]:
    """The largest difference of a row's outputs in two different batches and alone, and the largest output."""
    np = outputs.np
    some = rows.batch(0, min(COMPANY, rows.count), outputs.columns)
    together = outputs(_copy(some))
    turned = outputs(_copy({name: values[::-1] for name, values in some.items()}))
    count = min(ALONE, len(together))
    alone = np.concatenate([outputs(_copy(_cut(some, at, at + 1))) for at in range(count)])
    gaps = [np.abs(together - turned[::-1]).max(), np.abs(together[:count] - alone).max()]
    return {"batch_difference": number(max(gaps)), "largest": number(np.abs(together).max())}


def check_keys(predictor: Any, rows: Rows) -> dict[str, Any] | None:
    """Whether the model returns keys unchanged, even large and negative ones. ``None`` for a model without keys."""
    dtype = getattr(predictor, "key_dtype", None)
    if dtype is None:
        return None
    np = predictor.np
    sent = [key for key in EDGE_KEYS if dtype.min <= key <= dtype.max]
    if predictor.batch_size is not None:
        sent = (sent * predictor.batch_size)[: predictor.batch_size]
    batch = rows.take([at % rows.count for at in range(len(sent))])
    _, back = predictor.answer(batch, sent)
    back = np.asarray(back).reshape(-1).tolist()
    wrong = [str(key) for key, other in zip(sent, back) if key != other][:5]
    return {"sent": len(sent), "wrong": wrong + (["their number"] if len(sent) != len(back) else [])}


def latency(predictors: list[Outputs], rows: Rows) -> list[float]:
    """The latency of each predictor in milliseconds: the median over rows of the fastest call with that row alone.

    The fastest of several calls hardly depends on the other load of the machine. The median over rows accounts for rows
    that take different times. The predictors take turns, and their order is reversed after each pass over the rows:
    with a fixed order, the same predictor could lose the processor each time.
    """
    count = min(rows.count, LATENCY_ROWS)
    order = list(enumerate(predictors))
    single = [[rows.batch(row, row + 1, predictor.columns) for row in range(count)] for predictor in predictors]
    fastest = [[math.inf] * count for _ in predictors]
    for call in range(WARM + CALLS):
        row = call % count
        for at, predictor in order:
            batch = _copy(single[at][row])
            start = time.perf_counter()
            predictor(batch)
            if call >= WARM:
                fastest[at][row] = min(fastest[at][row], (time.perf_counter() - start) * 1000)
        if row == count - 1:
            order.reverse()
    return [statistics.median(times) for times in fastest]


def number(value: Any) -> Any:
    """A number that JSON can represent; infinities and NaN become strings."""
    value = float(value)
    return value if value - value == 0 else str(value)


def _rows(batch: Batch) -> int:
    return len(next(iter(batch.values())))


def _copy(batch: Batch) -> Batch:
    """A batch for one call. A predictor, such as a scorer, may change its batch."""
    return {name: values.copy() for name, values in batch.items()}


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    return {name: values[start:stop] for name, values in batch.items()}
