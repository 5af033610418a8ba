"""Types of JSON Lines columns: inferred from the beginning of the files and checked for every row."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlengine.core.errors import DatasetError
from mlengine.datasets.formats import jsonl
from mlengine.datasets.formats.base import NarrowTypeError
from mlengine.datasets.sources import LocalFile

ROWS = 300


@pytest.mark.parametrize(
    ("first", "last", "kind", "narrow"),
    [
        ("1", "1.5", pa.int64(), True),
        ("1", "99999999999999999999", pa.int64(), False),
        ("1", '"abc"', pa.int64(), False),
        ("1", "true", pa.int64(), False),
        ("1.5", '"abc"', pa.float64(), False),
        ("true", "3", pa.bool_(), False),
        ('"a"', "5", pa.string(), False),
    ],
)
def test_a_value_of_a_wrong_type_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, last: str, kind: pa.DataType, narrow: bool
) -> None:
    monkeypatch.setattr(jsonl, "_BLOCK", 1024)
    path = tmp_path / "part-0.jsonl"
    path.write_text("".join(f'{{"id": {row}, "x": {first}}}\n' for row in range(ROWS)) + f'{{"x": {last}}}\n')
    files = [LocalFile(path.name, path)]
    schema = jsonl.FORMAT.infer(files, {})
    assert schema.field("x").type == kind
    name = {"double": "float64"}.get(str(kind), str(kind))
    with pytest.raises(DatasetError) as caught:
        list(jsonl.FORMAT.batches(files, schema, 64))
    assert caught.value.message == f"{path}, line 301: column 'x' has the value {last}, and its type is {name}"
    assert isinstance(caught.value, NarrowTypeError) is narrow


def rows(folder: Path, *texts: str | bytes) -> list[LocalFile]:
    files = []
    for number, text in enumerate(texts):
        path = folder / f"part-{number}.jsonl"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        files.append(LocalFile(path.name, path))
    return files


def refused(files: list[LocalFile]) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        list(jsonl.FORMAT.batches(files, jsonl.FORMAT.infer(files, {}), 64, strict=True))
    return caught.value


LINES = "".join(f'{{"id": {row}, "x": "a"}}\n' for row in range(ROWS))


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize(
    ("last", "message"),
    [
        ("{oops\n", "line 301: Expecting property name enclosed in double quotes: {oops"),
        ('\n\n{"id": 3, "x": }\n', 'line 303: Expecting value: {"id": 3, "x": }'),
        ('{"id": 3, "x": "a', 'line 301: Unterminated string starting at: {"id": 3, "x": "a'),
        ('{"id": 3,\n', 'line 301: the row is not complete: {"id": 3,'),
        ('{"id": 3, "x": "a"}}\n', "line 301: Expecting value: }"),
        ('{"id": 3, "id": 4}\n', "line 301: the field 'id' occurs twice: "),
        ("[1]\n", "line 301: the row is not an object: [1]"),
        ('{"id": 3, "y": 7}\n', "line 301: unexpected field 'y'"),
        ('{"id": "b"}\n', "line 301: column 'id' has the "),
    ],
)
def test_a_bad_row_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bool, last: str, message: str
) -> None:
    """The row may be in the block from which types are inferred, or in a later one."""
    if "unexpected" in message and not small:
        return
    monkeypatch.setattr(jsonl, "_BLOCK", 1024 if small else 8 << 20)
    error = refused(rows(tmp_path, LINES + last))
    assert error.message.startswith(f"{tmp_path}/part-0.jsonl, {message}")


def test_an_error_after_multi_line_rows_names_the_right_line(tmp_path: Path) -> None:
    text = "".join(json.dumps({"id": row, "x": [row, {}]}, indent=1) + "\n" for row in range(10))
    error = refused(rows(tmp_path, text + '{"id": 3,\n"x": tru}\n'))
    lines = text.count("\n")
    assert f"line {lines + 2}: Expecting value" in error.message


def test_an_array_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    error = refused(rows(tmp_path, '[{"id": 1}, {"id": 2}]'))
    assert "line 1: the row is not an object" in error.message
    assert "jq -c" in str(error.hint)


@pytest.mark.parametrize("name", ["x", "é"])
def test_text_that_is_not_utf8_is_refused(tmp_path: Path, name: str) -> None:
    error = refused(rows(tmp_path, (LINES + f'{{"id": 3, "{name}": "Müller"}}\n').encode("latin-1")))
    assert f"{tmp_path}/part-0.jsonl, line 301: byte " in error.message
    assert "which is not UTF-8" in error.message
    assert "is UTF-16" in refused(rows(tmp_path, LINES.encode("utf-16"))).message


@pytest.mark.parametrize("empty", [None, []])
@pytest.mark.parametrize(
    ("value", "kind"), [(5, pa.int64()), (0.5, pa.float64()), ("a", pa.string()), ([1], pa.list_(pa.int64()))]
)
@pytest.mark.parametrize("place", ["late", "last line", "second file"])
def test_a_column_whose_values_begin_late_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: Any, value: Any, kind: pa.DataType, place: str
) -> None:
    if empty == [] and value != [1]:
        return
    monkeypatch.setattr(jsonl, "_BLOCK", 1024)
    begin = "".join(json.dumps({"id": row, "x": empty, "n": None}) + "\n" for row in range(ROWS))
    end = json.dumps({"id": ROWS, "x": value, "n": None})
    texts = {"late": (begin + end + "\n" + begin,), "last line": (begin + end,), "second file": (begin, end)}
    files = rows(tmp_path, *texts[place])
    schema = jsonl.FORMAT.infer(files, {})
    assert schema.field("x").type == kind
    schema = pa.schema([schema.field("id"), schema.field("x"), pa.field("n", pa.string())])
    found = pa.Table.from_batches(list(jsonl.FORMAT.batches(files, schema, 64))).column("x").to_pylist()
    assert [one for one in found if one] == [value]


@pytest.mark.parametrize(
    ("begin", "message"),
    [("[", "line 1: the row is not an object: ["), ('{"x": [{}', "line 1: the row is not complete: ")],
)
def test_a_row_without_an_end_takes_time_in_proportion_to_its_length(tmp_path: Path, begin: str, message: str) -> None:
    """Also if each of its lines ends as a row does."""
    line = ',{"a": 1, "b": "' + "x" * 80 + '"}\n'
    started = time.process_time()
    error = refused(rows(tmp_path, f"{begin}\n" + line * 100_000))
    assert message in error.message
    assert time.process_time() - started < 20  # an hour, if each line is decoded with all before it
