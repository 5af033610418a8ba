"""Types of CSV columns: inferred from the beginning of the files and checked for every row."""

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
    """Write files with a column ``x``, each with one value in all rows but the last, and another in the last.

    :param columns: the two values for each file.
    """
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
def test_the_type_of_a_column_is_inferred(
    tmp_path: Path, first: str, last: str, dtype: pa.DataType, value: Any
) -> None:
    files = write(tmp_path, (first, last))
    schema = FORMAT.infer(files, {})
    assert schema.field("x").type == dtype
    assert values(files, schema)[-1] == value


@pytest.mark.parametrize(
    ("first", "last", "fraction"), [("10:00:00", "10:00:00.25", 250_000), ("10:00:00Z", "10:00:00.25Z", 250_000)]
)
def test_a_late_fraction_of_a_second_is_read(tmp_path: Path, first: str, last: str, fraction: int) -> None:
    files = write(tmp_path, (f"2026-01-01 {first}", f"2026-01-01 {last}"))
    schema = pa.schema([("x", pa.timestamp("us", "UTC"))])
    assert [one.microsecond for one in values(files, schema)[-2:]] == [0, fraction]


def test_fractions_in_a_later_file_make_a_column_float64(tmp_path: Path) -> None:
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
def test_a_value_of_a_wrong_type_is_named_with_its_line(
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


def test_a_type_error_names_the_column_if_only_some_columns_are_read(tmp_path: Path) -> None:
    files = write(tmp_path, ("1", "2.5"))
    with pytest.raises(NarrowTypeError, match=r"column 'x' has the value '2\.5'") as caught:
        values(files, pa.schema([("x", pa.int64())]))
    assert (caught.value.column, caught.value.dtype) == ("x", "float64")


def one(folder: Path, text: str | bytes) -> list[LocalFile]:
    path = folder / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [LocalFile(path.name, path)]


def table(files: list[LocalFile], dtypes: dict[str, str] | None = None) -> dict[str, list[Any]]:
    batches = FORMAT.batches(files, FORMAT.infer(files, dtypes or {}), 64, strict=True)
    found: dict[str, list[Any]] = pa.Table.from_batches(list(batches)).to_pydict()
    return found


def refused(files: list[LocalFile]) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        table(files)
    return caught.value


@pytest.mark.parametrize("late", [False, True])
def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path: Path, late: bool) -> None:
    text = "id,name\n" + "".join(f"{row},Mueller\n" for row in range(ROWS if late else 0)) + "7,Müller\n"
    error = refused(one(tmp_path, text.encode("latin-1")))
    where = f"{tmp_path}/rows.csv, line {ROWS + 2 if late else 2}"
    assert error.message.startswith(f"{where}: byte 4 is 0xfc, which is not UTF-8 (in '7,Müller')")
    assert "iconv -f WINDOWS-1252 -t UTF-8" in str(error.hint)


def test_a_binary_column_can_have_any_bytes(tmp_path: Path) -> None:
    files = one(tmp_path, "id,name\n7,Müller\n".encode("latin-1"))
    assert table(files, {"name": "binary"})["name"] == ["Müller".encode("latin-1")]


def test_a_header_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    assert "rows.csv, line 1: byte 5 is 0xe4" in refused(one(tmp_path, "id,näme\n7,a\n".encode("latin-1"))).message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_unicode_encodings_are_refused(tmp_path: Path, encoding: str) -> None:
    error = refused(one(tmp_path, "id,name\n7,a\n".encode(encoding)))
    name = encoding[:6].upper()
    assert error.message == f"{tmp_path}/rows.csv is {name}; text files must be UTF-8"
    assert f"iconv -f {name} -t UTF-8" in str(error.hint)


@pytest.mark.parametrize("name", ["a;b;c;d", "a\nb", "a\r\nb", 'say ""x"", y'])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_and_line_breaks_in_a_column_name_are_read(tmp_path: Path, name: str, mark: str) -> None:
    found = table(one(tmp_path, f'{mark}"{name}",id\n7,1\n8,2\n'))
    assert found == {name.replace('""', '"'): [7, 8], "id": [1, 2]}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_line_ends_are_read(tmp_path: Path, end: str) -> None:
    text = end.join(["id,x", *(f"{row},{row}" for row in range(ROWS)), ""])
    assert table(one(tmp_path, text)) == {"id": list(range(ROWS)), "x": list(range(ROWS))}
    error = refused(one(tmp_path, f"{text}1,abc{end}"))
    assert f"line {ROWS + 2}: column 'x' has the value 'abc'" in error.message


def test_times_of_day_are_text(tmp_path: Path) -> None:
    files = one(tmp_path, "t\n" + "".join(f"12:{row % 60:02}\n" for row in range(ROWS)) + "noon\n")
    assert FORMAT.infer(files, {}).field("t").type == pa.string()
    assert table(files)["t"][-2:] == ["12:39", "noon"]
    with pytest.raises(DatasetError) as caught:
        table(files, {"t": "timestamp"})
    assert "a time of day has no date" in str(caught.value.hint)


def test_na_words_are_text_in_a_text_column(tmp_path: Path) -> None:
    text = 'country,n,q\nNA,NA,"1"\nDE,5,""\n,,"2"\nnull,NaN,"NA"\n"",null,"3"\n'
    files = one(tmp_path, text)
    assert FORMAT.infer(files, {}).types == [pa.string(), pa.int64(), pa.int64()]
    assert table(files) == {
        "country": ["NA", "DE", None, "null", None],
        "n": [None, 5, None, None, None],
        "q": [1, None, 2, None, 3],
    }


@pytest.mark.parametrize(("last", "kind", "value"), [("5", pa.int64(), None), ("DE", pa.string(), "NA")])
def test_a_column_that_begins_with_na_words_gets_its_later_type(
    tmp_path: Path, last: str, kind: pa.DataType, value: Any
) -> None:
    files = write(tmp_path, ("NA", last))
    assert FORMAT.infer(files, {}).field("x").type == kind
    assert values(files, FORMAT.infer(files, {}))[0] == value


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("x,id", "row 6 (line 7) has 1 fields, the header 2"),
        ("id,x", "line 7: a quote of the row that begins here is not closed until the end of the file"),
    ],
)
def test_an_unclosed_quote_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str, message: str
) -> None:
    monkeypatch.setattr(csv, "_BLOCK", 4 << 20)
    rows = [(f"{row}", '"a' if row == 5 else "a") for row in range(ROWS)]
    lines = [",".join(row if columns == "id,x" else row[::-1]) for row in rows]
    error = refused(one(tmp_path, "\n".join([columns, *lines, ""])))
    assert message in error.message
    assert "close" in str(error.hint)


def test_an_unclosed_quote_in_a_large_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "_BLOCK", 4 << 20)
    lines = [f"{row},{'a' * 200}\n" for row in range(60_000)]
    lines[5] = '5,"' + lines[5][2:]
    text = "id,x\n" + "".join(lines)
    error = refused(one(tmp_path, text))
    assert f"{tmp_path}/rows.csv, line 7: the row that begins here is longer than 4 MiB" in error.message
    assert "close the quote" in str(error.hint)


def test_a_last_field_with_line_breaks_is_read(tmp_path: Path) -> None:
    assert table(one(tmp_path, 'id,x\n1,"a\nb"\n\n')) == {"id": [1], "x": ["a\nb"]}


@pytest.mark.parametrize("text", ['x,id\n"a\nb",1\n', 'x,id\n"a\nb",1', '\r\nx,id\r\n"a\nb",1\r\n\r\n'])
def test_line_breaks_in_another_than_the_last_field_of_the_last_row(tmp_path: Path, text: str) -> None:
    assert table(one(tmp_path, text)) == {"x": ["a\nb"], "id": [1]}


def test_a_quote_that_is_not_closed_before_an_escaped_one(tmp_path: Path) -> None:
    assert "a quote of the row that begins here is not closed" in refused(one(tmp_path, 'id,x\n1,"a\nb""\n')).message


@pytest.mark.parametrize("rows", [5, 50_000])
def test_a_quote_in_the_header_that_is_not_closed(tmp_path: Path, rows: int) -> None:
    error = refused(one(tmp_path, '"id,x\n' + "1,abc\n" * rows))
    assert error.message == f"{tmp_path}/rows.csv, line 1: a quote in the header line is not closed"
