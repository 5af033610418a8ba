"""Columns are written for the scoring process, and read back as it reads them."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlengine.core.errors import DatasetError
from mlengine.validation.column_file import ColumnFile
from mlengine.validation.scoring.rows import Rows


def write(folder: Path, columns: dict[str, Sequence[pa.Array]]) -> Rows:
    """Write each column in batches, and return the rows."""
    infos, rows = [], 0
    for at, (name, batches) in enumerate(columns.items()):
        file = ColumnFile(name, f"{at:03d}", folder)
        for batch in batches:
            file.append(batch)
        infos.append(file.close())
        rows = sum(len(batch) for batch in batches)
    (folder / "columns.json").write_text(json.dumps({"rows": rows, "columns": infos}))
    return Rows(folder)


@pytest.mark.parametrize(
    ("kind", "batches", "dtype", "expected"),
    [
        (pa.int32(), [[1, 2], [3]], "int32", [1, 2, 3]),
        (pa.int64(), [[1, 2], [None]], "int64", [1.0, 2.0, np.nan]),
        (pa.bool_(), [[None, True], [False]], "bool", [np.nan, 1.0, 0.0]),
        (pa.float32(), [[0.5, None], [np.inf]], "float32", [0.5, np.nan, np.inf]),
        (pa.float16(), [[0.5], [1.0, 2.0]], "float16", [0.5, 1.0, 2.0]),
        (pa.decimal128(5, 2), [["1.25", None], ["2.50"]], "float64", [1.25, np.nan, 2.5]),
    ],
)
def test_columns_of_numbers_are_read(
    tmp_path: Path, kind: pa.DataType, batches: list[list[Any]], dtype: str, expected: list[Any]
) -> None:
    arrays = [pa.array(batch).cast(kind) if isinstance(batch[0], str) else pa.array(batch, kind) for batch in batches]
    rows = write(tmp_path, {"n": arrays})
    assert rows.columns["n"].dtype == dtype
    assert np.array_equal(rows.batch(0, 3)["n"], expected, equal_nan=True)
    assert np.array_equal(rows.take([2, 0])["n"], [expected[2], expected[0]], equal_nan=True)


def test_a_missing_time_is_nat(tmp_path: Path) -> None:
    rows = write(
        tmp_path,
        {
            "day": [pa.array([date(2026, 1, 2), None])],
            "time": [pa.array([None, datetime(2026, 1, 2, 3, tzinfo=UTC)], pa.timestamp("us", "UTC"))],
        },
    )
    batch = rows.batch(0, 2)
    assert batch["day"].astype(str).tolist() == ["2026-01-02", "NaT"]
    assert batch["time"].astype("datetime64[h]").astype(str).tolist() == ["NaT", "2026-01-02T03"]
    assert rows.take([1, 0])["day"].astype(str).tolist() == ["NaT", "2026-01-02"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_columns_of_strings_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    whole = pa.array(["unused", "a", None, "ñz", ""]).cast(kind)
    rows = write(tmp_path, {"t": [whole.slice(1, 2), whole.slice(3, 2)]})
    assert rows.columns["t"].dtype == "string"
    assert rows.batch(0, 4)["t"].tolist() == ["a", None, "ñz", ""]
    assert rows.take([2, 0])["t"].tolist() == ["ñz", "a"]


def test_bytes_and_empty_columns_are_read(tmp_path: Path) -> None:
    rows = write(tmp_path, {"b": [pa.array([b"\xff\0", b""])], "empty": [pa.array([None, None], pa.string())]})
    assert rows.batch(0, 2)["b"].tolist() == [b"\xff\0", b""]
    assert rows.batch(0, 2)["empty"].tolist() == [None, None]


def test_columns_of_tensors_are_read(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(values)
    lists = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], pa.list_(pa.float32(), 2))
    rows = write(
        tmp_path, {"image": [tensors.slice(0, 1), tensors.slice(1, 3)], "pair": [lists.slice(0, 3), lists[3:]]}
    )
    assert np.array_equal(rows.batch(0, 4)["image"], values)
    assert rows.batch(2, 4)["pair"].tolist() == [[5.0, 6.0], [7.0, 8.0]]
    assert rows.columns["image"].shape == (2, 3)


def test_values_that_no_model_is_given_are_refused_with_their_row(tmp_path: Path) -> None:
    kind = pa.list_(pa.float32(), 2)
    file = ColumnFile("pair", "000", tmp_path)
    file.append(pa.array([[1.0, 2.0]] * 5, kind))
    with pytest.raises(DatasetError, match="column 'pair' of the held-out set has no value, or not all, in row 6"):
        file.append(pa.array([[1.0, 2.0], None], kind))
    with pytest.raises(DatasetError, match=r"column 'words' of the held-out set has lists of any length \(list<"):
        ColumnFile("words", "001", tmp_path).append(pa.array([[1], [1, 2]]))


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint8(), pa.bool_()])
def test_a_missing_integer_in_a_tensor_is_refused(tmp_path: Path, kind: pa.DataType) -> None:
    lists = pa.list_(kind, 2)
    one = pa.scalar(1).cast(kind).as_py()
    whole, part = pa.array([[one, one]] * 2, lists), pa.array([[one, one], [one, None]], lists)
    with pytest.raises(DatasetError, match="column 'x' of the held-out set has no value, or not all, in row 3;"):
        write(tmp_path, {"x": [whole, part]})


def test_a_missing_float_in_a_tensor_is_nan(tmp_path: Path) -> None:
    batch = pa.array([[1.0, None], [2.0, 3.0]], pa.list_(pa.float32(), 2))
    np.testing.assert_array_equal(write(tmp_path, {"x": [batch]}).batch(0, 2)["x"], [[1.0, np.nan], [2.0, 3.0]])


def test_a_table_can_have_more_columns_than_the_open_file_limit(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Earlier tests in this process may have left files open.
    limit = max(int(name) for name in os.listdir("/proc/self/fd")) + 20  # noqa: PTH208
    files = [ColumnFile(f"x{at}", f"{at:03d}", tmp_path) for at in range(limit)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limits[1]))
    try:
        for file in files:
            file.append(pa.array([0.5]))
        for file in files:
            file.append(pa.array([1.5]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (tmp_path / f"{limit - 1:03d}.data").stat().st_size == 16
