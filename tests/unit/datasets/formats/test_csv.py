"""Types of CSV columns: inferred from the beginning, and held against every row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlengine.core.errors import DatasetError
from mlengine.datasets.formats import csv
from mlengine.datasets.formats.base import NarrowTypeError
from mlengine.datasets.sources import LocalFile

FORMAT = csv.FORMAT
ROWS = 100


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "_BLOCK", 256)


def write(folder: Path, *columns: tuple[Any, Any]) -> list[LocalFile]:
    """One file for each (value of the first rows, value of the last row) of the column ``x``."""
    files = []
    for number, (first, last) in enumerate(columns):
        path = folder / f"part-{number}.csv"
        path.write_text("id,x\n" + "".join(f"{row},{first}\n" for row in range(ROWS)) + f"{ROWS},{last}\n")
        files.append(LocalFile(path.name, path))
    return files


def values(files: list[LocalFile], schema: pa.Schema) -> list[Any]:
    return [value for batch in FORMAT.batches(files, schema, 64) for value in batch.column("x").to_pylist()]


@pytest.mark.parametrize(
    ("first", "last", "dtype", "value"),
    [
        ("1", "", pa.int64(), None),
        ("", "5", pa.int64(), 5),
        ("", "2.5", pa.float64(), 2.5),
        ("", "Bern", pa.string(), "Bern"),
        ("", "", pa.string(), None),
        ("1.5", "2", pa.float64(), 2.0),
        ("Bern", "5", pa.string(), "5"),
    ],
)
def test_the_type_of_a_column(tmp_path: Path, first: str, last: str, dtype: pa.DataType, value: Any) -> None:
    files = write(tmp_path, (first, last))
    schema = FORMAT.infer(files, {})
    assert schema.field("x").type == dtype
    assert values(files, schema)[-1] == value


@pytest.mark.parametrize(
    ("first", "last", "fraction"), [("10:00:00", "10:00:00.25", 250_000), ("10:00:00Z", "10:00:00.25Z", 250_000)]
)
def test_times_with_a_fraction_of_a_second_late_in_the_file(
    tmp_path: Path, first: str, last: str, fraction: int
) -> None:
    files = write(tmp_path, (f"2026-01-01 {first}", f"2026-01-01 {last}"))
    schema = pa.schema([("x", pa.timestamp("us", "UTC"))])
    assert [one.microsecond for one in values(files, schema)[-2:]] == [0, fraction]


def test_fractions_in_the_second_file(tmp_path: Path) -> None:
    files = write(tmp_path, ("1", "2"), ("1.5", "2.5"), ("", ""))
    schema = FORMAT.infer(files, {})
    assert schema.field("x").type == pa.float64()
    assert values(files, schema)[ROWS : ROWS + 2] == [2.0, 1.5]


@pytest.mark.parametrize(
    ("first", "last", "kind", "hint"),
    [
        ("1", "abc", "int64", "--dtype x=string"),
        ("1", "99999999999999999999", "int64", "--dtype x=float64 (or string)"),
        ("1.5", "abc", "float64", "--dtype x=string"),
        ("true", "maybe", "bool", "--dtype x=string"),
        ("2026-01-01", "2026-01-01 10:00:00", "date32[day]", "--dtype x=timestamp"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_line(
    tmp_path: Path, first: str, last: str, kind: str, hint: str
) -> None:
    files = write(tmp_path, (first, first), (first, last))
    with pytest.raises(DatasetError) as caught:
        values(files, FORMAT.infer(files, {}))
    where = f"{files[1].local}, line {ROWS + 2}"
    assert caught.value.message == f"{where}: column 'x' has the value {last!r}, and its type is {kind}"
    assert caught.value.hint is not None
    assert caught.value.hint.endswith(hint)
    assert not isinstance(caught.value, NarrowTypeError)


def test_the_column_is_named_if_not_all_are_read(tmp_path: Path) -> None:
    files = write(tmp_path, ("1", "2.5"))
    with pytest.raises(NarrowTypeError, match=r"column 'x' has the value '2\.5'") as caught:
        values(files, pa.schema([("x", pa.int64())]))
    assert (caught.value.column, caught.value.dtype) == ("x", "float64")
