"""What is wrong with a CSV file, with the line that it is wrong in.

The streaming reader of pyarrow does not count rows, so the file is read again, by Python's ``csv``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlengine.core.errors import DatasetError
from mlengine.datasets.formats.base import NarrowTypeError
from mlengine.datasets.formats.csv_header import delimiter
from mlengine.datasets.sources import SourceFile, uncompressed

_CONVERSION = re.compile(r"CSV column #(\d+).*conversion error to (\S+): invalid value '(.*)'", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?inf", re.IGNORECASE)


def explained(file: SourceFile, error: Exception) -> DatasetError:
    """The error of pyarrow in terms of the file: its line, column and value.

    It is a :class:`~mlengine.datasets.formats.base.NarrowTypeError` if the type of the column could be another.
    """
    text = str(error)
    if "Empty CSV" in text:
        return DatasetError(f"{file.where} is empty", hint="remove it, or write a header line and rows")
    if "Expected" in text and "columns, got" in text:
        row = _row_of_wrong_width(file)
        return DatasetError(f"{file.where}: {row or text}", hint="quote fields that contain the delimiter")
    found = _CONVERSION.search(text)
    if found is None:
        return DatasetError(f"{file.where}: {text}", hint="correct the file")
    return _conversion(file, int(found[1]), found[2], found[3])


def _conversion(file: SourceFile, number: int, kind: str, value: str) -> DatasetError:
    kind = {"double": "float64", "float": "float32"}.get(kind, kind)
    with _rows(file) as rows:
        header: list[str] = next(rows, [])
        line = next((rows.line_num for row in rows if len(row) > number and row[number] == value), None)
    name = header[number] if number < len(header) else f"#{number + 1}"
    where = f"{file.where}, line {line:,}" if line else file.where
    text = f"{where}: column {name!r} has the value {value!r}, and its type is {kind}"
    if kind.startswith(("int", "uint")) and _NUMBER.fullmatch(value) and not value.lstrip("+-").isdigit():
        return NarrowTypeError(text, name, "float64")
    wider = "timestamp" if kind.startswith("date") else "string"
    wider = f"float64 (or {wider})" if kind.startswith(("int", "uint")) and value.lstrip("+-").isdigit() else wider
    return DatasetError(text, hint=f"correct the value; or set the column's type: --dtype {name}={wider}")


def _row_of_wrong_width(file: SourceFile) -> str:
    with _rows(file) as rows:
        width = len(next(rows, []))
        for number, row in enumerate(rows, 1):
            if row and len(row) != width:
                return f"row {number:,} has {len(row)} fields, the header {width}: {str(row)[:200]}"
    return ""


@contextmanager
def _rows(file: SourceFile) -> Iterator[Any]:
    """The fields of each row, the header first; ``line_num`` counts the lines."""
    with uncompressed(file) as stream:
        lines = io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", errors="replace", newline="")
        yield csv.reader(lines, delimiter=delimiter(file))
