"""Computes statistics of the columns of a split, in one pass over its batches.

Rows, nulls, range, mean and standard deviation are exact, as are the counts of values if a column has few distinct
ones. Quantiles, and the frequent values of a column with many, are estimated from a sample of the rows.
"""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from mlengine.core.dataset import Column, ColumnStatistics, Schema, Value
from mlengine.core.dataset.statistics import QUANTILE_STEPS
from mlengine.core.errors import DatasetError
from mlengine.datasets.sample import RowSample

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MOST_VALUES = 1_000  # distinct values of a column that are counted individually
MOST_CLASSES = 10_000  # the same for the target
TOP = 20  # values that the manifest lists for a column with more than MOST_LISTED; it lists all of the target
MOST_LISTED = 100


class SplitStatistics:
    """Collects the statistics of one split."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.rows = 0
        self.columns = {
            column.name: ColumnCollector(column, MOST_CLASSES if column.name == schema.target else MOST_VALUES)
            for column in schema.columns
        }
        self._sample = RowSample([c.name for c in schema.columns if not c.shape and (c.numeric or c.dtype == "string")])

    def add(self, batch: pa.RecordBatch) -> None:
        self.rows += len(batch)
        for name, collector in self.columns.items():
            collector.add(batch.column(name))
        self._sample.add(batch)

    def finish(self) -> dict[str, ColumnStatistics]:
        """The statistics by column."""
        sample = self._sample.table()
        return {
            name: collector.finish(
                sample.column(name) if name in sample.column_names else None,
                self.rows,
                TOP if name != self.schema.target else MOST_CLASSES,
            )
            for name, collector in self.columns.items()
        }


class ColumnCollector:
    """Collects the statistics of one column.

    :ivar counts: the number of rows of each value; ``None`` if there are more than ``most`` distinct values.
    """

    def __init__(self, column: Column, most: int) -> None:
        self.column = column
        self.nulls = 0
        self.infinite = 0
        self.counts: Counter[Value] | None = Counter() if not column.shape and _countable(column) else None
        self._most = most
        self._range: list[Any] = []
        self._moments = _Moments()

    def add(self, array: pa.Array) -> None:
        self.nulls += array.null_count
        column = self.column
        if column.shape or column.dtype == "binary":
            return
        if column.dtype in ("timestamp", "date"):
            self._add_range(array)
        elif column.numeric and column.dtype != "bool":
            self._add_numbers(array)
        else:
            self._count(array)

    def _add_range(self, array: pa.Array) -> None:
        import pyarrow.compute as pc

        try:
            found = pc.min_max(array).as_py()
        except (OverflowError, ValueError) as error:
            raise DatasetError(
                f"column {self.column.name!r} has times that cannot be read: {error}",
                hint="write times from the years 1 to 9999, or leave the column out",
            ) from error
        self._range = [value for value in (*self._range, found["min"], found["max"]) if value is not None]
        self._range = [min(self._range), max(self._range)] if self._range else []

    def _add_numbers(self, array: pa.Array) -> None:
        import numpy as np

        values = (array.drop_null() if array.null_count else array).to_numpy(zero_copy_only=False)
        if (
            values.dtype.kind == "f"
            and len(values)
            and not (math.isfinite(values.min()) and math.isfinite(values.max()))
        ):
            values = self._finite(values)
        if len(values) == 0:
            return
        low, high = values.min().item(), values.max().item()
        self._range = [min(low, *self._range), max(high, *self._range)] if self._range else [low, high]
        self._moments.add(values.astype(np.float64, copy=False))
        if self.counts is not None:
            self._count_numbers(values, low, high)

    def _finite(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        import numpy as np

        finite = np.isfinite(values)
        nan = int(np.isnan(values).sum())
        self.nulls += nan
        self.infinite += len(values) - int(finite.sum()) - nan
        kept: np.ndarray[Any, Any] = values[finite]
        return kept

    def _count_numbers(self, values: np.ndarray[Any, Any], low: float, high: float) -> None:
        import numpy as np
        import pyarrow as pa

        if values.dtype.kind in "iu" and high - low < 4 * self._most:
            if values.dtype.kind == "i":  # the difference of two int8 may not fit an int8
                values = values.astype(np.int64, copy=False)
            rows = np.bincount((values - values.dtype.type(low)).astype(np.int64, copy=False))
            found = np.flatnonzero(rows)
            known = [one + int(low) for one in found.tolist()]
            self._update(zip(known, rows[found].tolist(), strict=True), len(found))
        else:
            self._count(pa.array(values))

    def _count(self, array: pa.Array) -> None:
        import pyarrow.compute as pc

        if self.counts is None:
            return
        found = pc.value_counts(array.drop_null())
        values, rows = found.field("values"), found.field("counts")
        if len(values) > self._most:
            self.counts = None
        else:
            self._update(zip(values.to_pylist(), rows.to_pylist(), strict=True), len(values))

    def _update(self, pairs: Any, distinct: int) -> None:
        if self.counts is None or distinct > self._most:
            self.counts = None
            return
        counts = self.counts
        for value, rows in pairs:
            counts[value] += rows
        if len(counts) > self._most:
            self.counts = None

    def finish(self, sample: pa.ChunkedArray | None, rows: int, top: int) -> ColumnStatistics:
        low, high = (_plain(value) for value in self._range) if self._range else (None, None)
        quantiles = _quantiles(sample, low, high) if sample is not None and self.column.numeric else ()
        if self.counts is None:
            frequent = _frequent(sample, self.column, rows)
        else:
            frequent = self.counts.most_common(top if len(self.counts) > MOST_LISTED else None)
        estimated = sample is not None and len(sample) < rows and (bool(quantiles) or self.counts is None)
        return ColumnStatistics(
            nulls=self.nulls,
            distinct=len(self.counts) if self.counts is not None and not self.column.shape else None,
            min=low,
            max=high,
            mean=self._moments.mean,
            std=self._moments.std,
            quantiles=quantiles,
            top=tuple(frequent),
            sampled=len(sample) if estimated and sample is not None else None,
            infinite=self.infinite or None,
        )


class _Moments:
    """Mean and standard deviation, computed relative to the first mean so that large numbers lose no precision.

    Both are ``None`` if there are no numbers, or if the sums exceed float64.
    """

    def __init__(self) -> None:
        self._count = 0
        self._shift = 0.0
        self._sum = 0.0
        self._squares = 0.0

    def add(self, values: np.ndarray[Any, Any]) -> None:
        import numpy as np

        with np.errstate(over="ignore", invalid="ignore"):
            if self._count == 0:
                self._shift = float(values.mean())
            shifted = values - self._shift
            self._count += len(values)
            self._sum += float(shifted.sum())
            shifted *= shifted
            self._squares += float(shifted.sum())

    @property
    def mean(self) -> float | None:
        return _finite_or_none(self._shift + self._sum / self._count) if self._count else None

    @property
    def std(self) -> float | None:
        if not self._count:
            return None
        mean = self._sum / self._count
        variance = self._squares / self._count - mean * mean
        return math.sqrt(max(0.0, variance)) if math.isfinite(variance) else None


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _countable(column: Column) -> bool:
    return column.dtype not in ("binary", "timestamp", "date")


def _quantiles(sample: pa.ChunkedArray, low: Any, high: Any) -> tuple[float, ...]:
    import numpy as np

    if low is None or isinstance(low, str):
        return ()
    values = sample.drop_null().to_numpy().astype(np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return ()
    inner = np.quantile(values, np.linspace(0, 1, QUANTILE_STEPS + 1))[1:-1].tolist()
    return (float(low), *inner, float(high))


def _frequent(sample: pa.ChunkedArray | None, column: Column, rows: int) -> list[tuple[Value, int]]:
    """The most frequent values of a column with many, estimated from those that occur at least twice in the sample."""
    import pyarrow.compute as pc

    if sample is None or column.dtype != "string" or len(sample) == 0:
        return []
    found = pc.value_counts(sample.combine_chunks().drop_null())
    pairs = Counter(dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)))
    return [(value, round(count * rows / len(sample))) for value, count in pairs.most_common(TOP) if count > 1]


def _plain(value: Any) -> Value:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value.isoformat() if isinstance(value, date) else value
