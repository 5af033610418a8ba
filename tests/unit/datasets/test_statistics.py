"""Statistics of a split, computed in one pass: exact where they are marked so, else estimated within limits."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest

from mlengine.core.dataset import Column, ColumnStatistics, Schema
from mlengine.datasets.sample import RowSample
from mlengine.datasets.statistics import MOST_VALUES, SplitStatistics


def statistics(
    columns: dict[str, tuple[Column, pa.Array]], step: int = 700, target: str | None = None
) -> dict[str, ColumnStatistics]:
    schema = Schema(tuple(column for column, _ in columns.values()), target=target)
    batch = pa.RecordBatch.from_arrays([array for _, array in columns.values()], names=list(columns))
    collected = SplitStatistics(schema)
    for begin in range(0, len(batch), step):
        collected.add(batch.slice(begin, step))
    assert collected.rows == len(batch)
    return collected.finish()


def test_statistics_of_numbers() -> None:
    values = np.random.default_rng(0).normal(1e9, 3.0, 5_000)
    array = pa.array([None, float("nan"), *values])
    found = statistics({"x": (Column("x", "float64"), array)})["x"]
    assert (found.nulls, found.distinct, found.top, found.sampled) == (2, None, (), None)
    assert (found.min, found.max) == (values.min(), values.max())
    assert found.mean == pytest.approx(values.mean(), rel=1e-14)
    assert found.std == pytest.approx(values.std(), rel=1e-9)
    assert found.quantiles[10] == pytest.approx(np.median(values), rel=1e-12)
    assert len(found.quantiles) == 21


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("largest", [1e200, np.finfo(np.float64).max])
def test_sums_that_exceed_float64_give_no_mean_or_spread(largest: float) -> None:
    values = np.array([1.0, largest, -largest, largest] * 10)
    found = statistics({"x": (Column("x", "float64"), pa.array(values))}, step=3)["x"]
    assert (found.min, found.max, found.std) == (-largest, largest, None)
    assert found.mean is None or found.mean == pytest.approx(values.mean())
    json.dumps(asdict(found), allow_nan=False)


def test_few_values_are_counted() -> None:
    found = statistics(
        {
            "i": (Column("i", "int8"), pa.array([3, -1, 3, None], pa.int8())),
            "s": (Column("s", "string"), pa.array(["a", None, "b", "a"])),
            "b": (Column("b", "bool"), pa.array([True, False, True, True])),
            "d": (Column("d", "date"), pa.array([19_000, None, 19_002, 19_001], pa.date32())),
            "v": (Column("v", "float32", (2,)), pa.array([[1, 2]] * 4, pa.list_(pa.float32(), 2))),
        },
        step=2,
    )
    assert found["i"].top == ((3, 2), (-1, 1))
    assert (found["s"].top, found["s"].distinct, found["s"].nulls) == ((("a", 2), ("b", 1)), 2, 1)
    assert found["b"].counts == {True: 3, False: 1}
    assert (found["d"].min, found["d"].max, found["d"].nulls) == ("2022-01-08", "2022-01-10", 1)
    assert found["v"] == ColumnStatistics(nulls=0)


def test_many_values_are_estimated_from_a_sample() -> None:
    random = np.random.default_rng(0)
    rows = 100_000
    words = np.where(random.random(rows) < 0.3, "often", random.integers(0, 1 << 40, rows).astype(str))
    numbers = random.integers(0, 1 << 30, rows)
    found = statistics(
        {"s": (Column("s", "string"), pa.array(words)), "n": (Column("n", "int64"), pa.array(numbers))}, step=7_000
    )
    assert (found["s"].distinct, found["s"].sampled) == (None, 20_000)
    value, count = found["s"].top[0]
    assert value == "often"
    assert count == pytest.approx(30_000, rel=0.05)
    assert found["n"].quantiles[5] == pytest.approx((1 << 30) / 4, rel=0.05)
    assert (found["n"].min, found["n"].max) == (numbers.min(), numbers.max())


def test_all_classes_of_a_target_are_counted() -> None:
    values = [f"class {number}" for number in range(MOST_VALUES + 1)]
    column = Column("y", "string")
    assert len(statistics({"y": (column, pa.array(values))}, target="y")["y"].top) == len(values)
    assert statistics({"y": (column, pa.array(values))})["y"].distinct is None


def test_a_sample_is_uniform_bounded_and_the_same_each_time() -> None:
    def sampled() -> list[int]:
        sample = RowSample(["x"], rows=1_000)
        for begin in range(0, 50_000, 1_000):
            sample.add(pa.RecordBatch.from_pydict({"x": np.arange(begin, begin + 1_000)}))
        return sample.table().column("x").to_pylist()  # type: ignore[no-any-return]

    first = sampled()
    assert len(first) == len(set(first)) == 1_000
    assert np.mean(first) == pytest.approx(25_000, rel=0.06)
    assert sampled() == first
