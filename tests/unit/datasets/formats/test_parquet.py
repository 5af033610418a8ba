"""What the columns of a Parquet file are read as, by their Arrow types."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from mlengine.core.dataset import Schema
from mlengine.core.errors import DatasetError
from mlengine.datasets.arrow import arrow_schema, column_of, conform
from mlengine.datasets.formats.parquet import FORMAT
from mlengine.datasets.sources import LocalFile

NOON = datetime.time(12, 0, 0, 5)
LISTS = [[1.0, 2.0], [3.0]]
BOOL8 = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8()))


def written(path: Path, array: pa.Array) -> LocalFile:
    parquet.write_table(pa.table({"c": array}), path)
    return LocalFile(path.name, path)


def read(file: LocalFile, dtypes: Mapping[str, str] | None = None) -> tuple[str, list[Any]]:
    """The column's type in the manifest, and its values."""
    columns = tuple(column_of(field, file.where) for field in FORMAT.infer([file], dtypes or {}))
    batches = list(FORMAT.batches([file], arrow_schema(Schema(columns)), 100))
    for batch in batches:
        batch.validate(full=True)
    return str(columns[0]), [value for batch in batches for value in batch.column("c").to_pylist()]


@pytest.mark.parametrize(
    ("array", "dtype", "values"),
    [
        (pa.array([datetime.time(1, 2, 3), None], pa.time32("ms")), "string", ["01:02:03.000", None]),
        (pa.array([NOON, None], pa.time64("us")), "string", ["12:00:00.000005", None]),
        (pa.array([5_000_000_001, None], pa.time64("ns")), "string", ["00:00:05.000000001", None]),
        (pa.array([2**64 - 1, None], pa.uint64()), "uint64", [2**64 - 1, None]),
        (pa.array([Decimal("1.25"), None], pa.decimal128(10, 2)), "float64", [1.25, None]),
        (pa.array([Decimal("1.25"), None], pa.decimal256(50, 2)), "float64", [1.25, None]),
        (pa.array([datetime.date(2026, 1, 2), None], pa.date64()), "date", [datetime.date(2026, 1, 2), None]),
        (pa.array([b"abcd", None], pa.binary(4)), "binary", [b"abcd", None]),
        (pa.array([1.5, None], pa.float16()), "float16", [1.5, None]),
        (pa.array([None, None]), "string", [None, None]),
        (pa.array(["a", None]).dictionary_encode(), "string", ["a", None]),
        (pa.array(["a", None], pa.large_string()), "string", ["a", None]),
        (pa.array(["a", None], pa.string_view()), "string", ["a", None]),
        (pa.array(LISTS, pa.large_list(pa.float64())), "float64[?]", LISTS),
        (pa.array(LISTS, pa.list_view(pa.float64())), "float64[?]", LISTS),
        (pa.array(LISTS, pa.large_list_view(pa.float64())), "float64[?]", LISTS),
        (pa.array([uuid.UUID(int=5).bytes, None], pa.uuid()), "string", [str(uuid.UUID(int=5)), None]),
        (pa.array(['{"a": 1}', None], pa.json_()), "string", ['{"a": 1}', None]),
        (BOOL8, "bool", [True, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_types_that_are_read(tmp_path: Path, array: pa.Array, dtype: str, values: list[Any]) -> None:
    assert read(written(tmp_path / "x.parquet", array)) == (dtype, values)


@pytest.mark.parametrize("kind", [pa.list_view(pa.int64()), pa.large_list_view(pa.int64())])
def test_list_views_keep_nulls_and_lengths(kind: pa.DataType) -> None:
    """The cast of pyarrow 26.0.1 reads wrong offsets, as those of a null are 0."""
    rows = [[1, 2], [], None, [3], [4, 5, 6], None]
    schema = pa.schema([pa.field("c", pa.list_(pa.int64()))])
    for first in range(3):
        batch = conform(pa.record_batch({"c": pa.array(rows, kind)[first:]}), schema, "x.parquet")
        batch.validate(full=True)
        assert batch.column("c").to_pylist() == rows[first:]


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_times_are_microseconds_in_utc(tmp_path: Path, zone: str | None) -> None:
    array = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", zone))
    moment = datetime.datetime(2023, 11, 14, 22, 13, 20, 123456, datetime.UTC)
    assert read(written(tmp_path / "x.parquet", array)) == ("timestamp", [moment])


@pytest.mark.parametrize(
    ("array", "dtype", "values"),
    [
        (pa.array([NOON, None], pa.time64("us")), "string", ["12:00:00.000005", None]),
        (pa.array([datetime.timedelta(seconds=1), None]), "int64", [1_000_000, None]),
        (pa.array([uuid.UUID(int=5).bytes], pa.uuid()), "binary", [uuid.UUID(int=5).bytes]),
        (pa.array([Decimal("1.25")], pa.decimal256(50, 2)), "string", ["1.25"]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_type_that_the_user_sets(tmp_path: Path, array: pa.Array, dtype: str, values: list[Any]) -> None:
    assert read(written(tmp_path / "x.parquet", array), {"c": dtype}) == (dtype, values)


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (pa.array([datetime.timedelta(1)]), "read it as the number of its units (us): --dtype c=int64"),
        (pa.array([{"a": 1}]), "write it as scalars"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "write it as scalars"),
        (pa.array([[[1.0]]]), "write it as scalars"),
    ],
    ids=["duration", "struct", "map", "list of lists"],
)
def test_types_that_are_refused(tmp_path: Path, array: pa.Array, hint: str) -> None:
    with pytest.raises(
        DatasetError, match=r"x\.parquet: column 'c' has type .*which a dataset version cannot"
    ) as caught:
        read(written(tmp_path / "x.parquet", array))
    assert hint in str(caught.value.hint)


def test_a_struct_is_no_string(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"column 'c' is struct<a: int64>, not string") as caught:
        read(written(tmp_path / "x.parquet", pa.array([{"a": 1}])), {"c": "string"})
    assert "write it as scalars" in str(caught.value.hint)


def test_a_time_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    """It would become another time."""
    file = written(tmp_path / "x.parquet", pa.array([10**13], pa.timestamp("s")))
    assert FORMAT.footer_statistics([file])["c"].min is None
    with pytest.raises(DatasetError, match=r"column 'c' is timestamp\[ms\].* out of bounds"):
        read(file)


def test_an_unnamed_index_of_pandas_is_no_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"c": [1.5, 2.5, 3.5]})
    frame.to_parquet(tmp_path / "whole.parquet")
    frame.loc[[2, 0, 1]].to_parquet(tmp_path / "some.parquet")
    assert parquet.read_schema(tmp_path / "some.parquet").names == ["c", "__index_level_0__"]
    files = [LocalFile(name, tmp_path / name) for name in ("some.parquet", "whole.parquet")]
    assert FORMAT.infer(files, {}).names == ["c"]
    assert read(files[0]) == ("float64", [3.5, 1.5, 2.5])
    assert list(FORMAT.footer_statistics(files)) == ["c"]


@pytest.mark.parametrize(
    ("parts", "values"),
    [
        ((pa.nulls(2), pa.array([1.5]), pa.nulls(1)), [None, None, 1.5, None]),
        ((pa.array([[], None]), pa.array([[1.5]])), [[], None, [1.5]]),
    ],
)
def test_a_column_without_values_has_the_type_of_another_file(
    tmp_path: Path, parts: tuple[pa.Array, ...], values: list[Any]
) -> None:
    files = [written(tmp_path / f"{number}.parquet", part) for number, part in enumerate(parts)]
    schema = FORMAT.infer(files, {})
    assert schema.field("c").type in (pa.float64(), pa.list_(pa.float64()))
    batches = FORMAT.batches(files, schema, 100)
    assert [value for batch in batches for value in batch.column("c").to_pylist()] == values


def test_files_with_different_types_are_refused_with_advice(tmp_path: Path) -> None:
    parts = (pa.array([1, 2]), pa.array([1.5, None]))
    files = [written(tmp_path / f"{number}.parquet", part) for number, part in enumerate(parts)]
    with pytest.raises(DatasetError, match=r"'c' is double and int64 in the first file\n.*--dtype COLUMN=TYPE"):
        FORMAT.infer(files, {})
    assert FORMAT.infer(files, {"c": "float64"}).field("c").type == pa.float64()
