"""Equal rows have equal hashes and different rows do not, for any memory layout of the arrays."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlengine.core.dataset import Column, Schema
from mlengine.datasets.arrow import arrow_type
from mlengine.datasets.overlap import HeldoutRows
from mlengine.datasets.row_hashes import compared_columns, row_hashes


def hashes(values: list[Any], column: Column) -> list[int]:
    array = pa.array(values, arrow_type(column)) if len(column.shape) < 2 else _tensors(values, column)
    batch = pa.RecordBatch.from_arrays([array], names=[column.name])
    found: list[int] = row_hashes(batch, (column,)).tolist()
    half = row_hashes(batch.slice(len(values) // 2), (column,)).tolist()
    assert half == found[len(values) // 2 :], "a slice must have the hashes of its rows"
    return found


def _tensors(values: list[Any], column: Column) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(values, column.dtype))


COLUMNS: dict[str, tuple[Column, st.SearchStrategy[Any]]] = {
    "int": (Column("x", "int64"), st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))),
    "uint64": (Column("x", "uint64"), st.integers(0, 2**64 - 1)),
    "float": (Column("x", "float64"), st.floats(allow_nan=False)),
    "half": (Column("x", "float16"), st.sampled_from([0.5, 1.0, 2.0])),
    "bool": (Column("x", "bool"), st.one_of(st.none(), st.booleans())),
    "string": (Column("x", "string"), st.one_of(st.none(), st.text(max_size=40))),
    "long": (Column("x", "binary"), st.binary(min_size=250, max_size=300)),
    "few": (Column("x", "string"), st.sampled_from(["a", "b", "", "abcdefghi"])),
    "time": (Column("x", "timestamp"), st.datetimes(timezones=st.just(UTC))),
    "date": (Column("x", "date"), st.dates()),
    "list": (Column("x", "int32", (-1,)), st.lists(st.integers(-5, 5), max_size=4)),
    "words": (Column("x", "string", (-1,)), st.lists(st.text(max_size=9), max_size=4)),
    "vector": (Column("x", "float32", (3,)), st.lists(st.integers(-9, 9).map(float), min_size=3, max_size=3)),
    "image": (
        Column("x", "uint8", (2, 2)),
        st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2), min_size=2, max_size=2),
    ),
}


@pytest.mark.parametrize("kind", COLUMNS)
@given(data=st.data())
def test_hashes_distinguish_values(kind: str, data: st.DataObject) -> None:
    column, strategy = COLUMNS[kind]
    values = data.draw(st.lists(strategy, min_size=1, max_size=30))
    found = hashes(values, column)
    plain = [repr(0.0 if value == 0 and column.dtype == "float64" else value) for value in values]
    if "float64" in column.dtype and any(str(value) == "-0.0" for value in values):
        return  # equal numbers with different bits
    assert len(set(zip(plain, found, strict=True))) == len(set(plain)) == len(set(found))


def test_repeated_strings_have_equal_hashes() -> None:
    column = Column("x", "string")
    values = ["a", "bb", "", None, "ccccccccc"] * 1_000
    assert hashes(values, column) == hashes(values[:5], column) * 1_000


def test_only_feature_and_target_columns_are_compared() -> None:
    columns = (Column("id", "string"), Column("x", "int8"), Column("w", "float32"), Column("y", "int8"))
    table = Schema(columns, target="y", key="id", weight="w")
    assert [column.name for column in compared_columns(table)] == ["x", "y"]
    picture = Schema((Column("image", "uint8", (2, 2)), Column("label", "uint8")), target="label")
    assert [column.name for column in compared_columns(picture)] == ["image"]


def test_equal_values_in_other_columns_are_different_rows() -> None:
    columns = (Column("a", "int64"), Column("b", "int64"), Column("when", "date"), Column("at", "timestamp"))
    day, moment = date(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([1, 2, None]),
            pa.array([2, 1, 3]),
            pa.array([day] * 3),
            pa.array([moment] * 3, pa.timestamp("us", "UTC")),
        ],
        names=["a", "b", "when", "at"],
    )
    assert len(set(row_hashes(batch, columns).tolist())) == 3


def test_overlap_is_exact_for_few_rows() -> None:
    rows = HeldoutRows()
    rows.add(np.array([5, 6, 7, 7], np.uint64))
    rows.finish()
    rows.match(np.array([1, 7], np.uint64))
    rows.match(np.array([6, 6], np.uint64))
    assert (rows.share, rows.distinct_share, rows.rows) == (0.75, 0.75, 4)
    assert rows.examples == [1, 2, 3]


def test_overlap_of_many_rows_is_estimated_in_bounded_memory() -> None:
    random = np.random.default_rng(3)
    values = random.integers(0, 1 << 63, 200_000, np.uint64) * np.uint64(2)
    rows = HeldoutRows(most=20_000)
    for part in np.split(values, 10):
        rows.add(part)
    rows.finish()
    assert len(rows._hashes) <= 20_000
    rows.match(values[:50_000])
    assert rows.share == pytest.approx(0.25, abs=0.02)


def test_overlap_without_held_out_rows_is_zero() -> None:
    rows = HeldoutRows()
    rows.finish()
    rows.match(np.array([1], np.uint64))
    assert (rows.share, rows.distinct_share) == (0.0, 1.0)
