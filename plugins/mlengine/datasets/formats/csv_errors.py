"""Finds the error in a CSV file and its line number.

The streaming reader of pyarrow does not count rows, so the file is read again, by Python's ``csv``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any

from mlengine.core.errors import DatasetError
from mlengine.datasets.formats.base import NarrowTypeError
from mlengine.datasets.formats.csv_header import END, delimiter
from mlengine.datasets.formats.text_encoding import not_utf8
from mlengine.datasets.sources import SourceFile, uncompressed

_CONVERSION = re.compile(r"CSV column #(\d+).*conversion error to (\S+): invalid value '(.*)'", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?inf", re.IGNORECASE)

_LONG = 1 << 20  # characters of a row that may not fit into a block of pyarrow's reader
_LONGEST = 16 << 20  # characters of a field that are read


def explained(file: SourceFile, error: Exception) -> DatasetError:
    """Convert an error of pyarrow to one with the line, column and value in the file.

    It is a :class:`~mlengine.datasets.formats.base.NarrowTypeError` if another column type would fit.
    """
    text = str(error)
    if "Empty CSV" in text:
        return DatasetError(f"{file.where} is empty", hint="remove it, or write a header line and rows")
    if "invalid UTF8" in text:
        return not_utf8(file)
    if "Expected" in text and "columns, got" in text:
        return _wrong_width(file) or DatasetError(f"{file.where}: {text}", hint="quote fields with the delimiter")
    if "straddling" in text:
        return _too_long(file)
    found = _CONVERSION.search(text)
    if found is None:
        return DatasetError(f"{file.where}: {text}", hint="correct the file")
    return _conversion(file, int(found[1]), found[2], found[3])


def _conversion(file: SourceFile, number: int, kind: str, value: str) -> DatasetError:
    kind = {"double": "float64", "float": "float32"}.get(kind, kind)
    header: list[str] = []
    line = None
    with _rows(file) as rows, suppress(csv.Error):
        header = next(filter(None, rows), [])
        line = next((rows.line_num for row in rows if len(row) > number and row[number] == value), None)
    name = header[number] if number < len(header) else f"#{number + 1}"
    where = f"{file.where}, line {line:,}" if line else file.where
    text = f"{where}: column {name!r} has the value {value!r}, and its type is {kind}"
    if kind.startswith(("int", "uint")) and _NUMBER.fullmatch(value) and not value.lstrip("+-").isdigit():
        return NarrowTypeError(text, name, "float64")
    wider = "timestamp" if kind.startswith("date") else "string"
    wider = f"float64 (or {wider})" if kind.startswith(("int", "uint")) and value.lstrip("+-").isdigit() else wider
    return DatasetError(text, hint=f"correct the value; or set the column's type: --dtype {name}={wider}")


def _wrong_width(file: SourceFile) -> DatasetError | None:
    """The error for the first row with more or fewer fields than the header; ``None`` if there is none."""
    with _rows(file) as rows, suppress(csv.Error):
        width = len(next(filter(None, rows), []))
        line = rows.line_num + 1
        for number, row in enumerate(rows, 1):
            if row and len(row) != width:
                text = f"row {number:,} (line {line:,}) has {len(row)} fields, the header {width}: {str(row)[:200]}"
                hint = "quote fields that contain the delimiter"
                if rows.line_num > line:
                    hint = f"close the quote of the field that begins in line {line:,} or below; {hint}"
                return DatasetError(f"{file.where}: {text}", hint=hint)
            line = rows.line_num + 1
    return None


def _too_long(file: SourceFile) -> DatasetError:
    """The error for the first row that is too long for pyarrow's reader."""
    with _rows(file) as rows, suppress(csv.Error):
        line = 1
        while (row := next(rows, None)) is not None and sum(map(len, row)) < _LONG:
            line = rows.line_num + 1
    return DatasetError(
        f"{file.where}, line {line:,}: the row that begins here is longer than 4 MiB",
        hint="close the quote of its field; or write the data as Parquet, if it is so long",
    )


def check_closed(file: SourceFile) -> None:
    """Check that all quotes are closed.

    :raises DatasetError: a quote is still open at the end of the file, so that the last rows are one field.
    """
    begin, line, last = 1, 1, [END]
    with _rows(file, END) as rows, suppress(csv.Error):
        for row in rows:
            begin, line, last = line, rows.line_num + 1, row
    if last != [END]:
        where = f"{file.where}, line {begin:,}"
        raise DatasetError(
            f"{where}: a quote of the row that begins here is not closed until the end of the file",
            hint='close it; write a quote in a field as ""',
        )


@contextmanager
def _rows(file: SourceFile, *more: str) -> Iterator[Any]:
    """A CSV reader of all rows, the header first. Its ``line_num`` counts lines.

    :param more: lines to append to those of the file.
    """
    with uncompressed(file) as stream:
        lines = io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", errors="replace", newline="")
        limit = csv.field_size_limit(_LONGEST)
        try:
            yield csv.reader(chain(lines, more), delimiter=delimiter(file))
        finally:
            csv.field_size_limit(limit)
