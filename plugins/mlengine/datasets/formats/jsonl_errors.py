"""Finds the error in a JSON Lines file and its line number.

pyarrow counts rows from the beginning of a block, and names no column for a number that it cannot convert, so the file
is read again.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import DatasetError
from mlengine.datasets.arrow import column_of
from mlengine.datasets.formats.base import NarrowTypeError
from mlengine.datasets.formats.text_encoding import not_utf8
from mlengine.datasets.sources import SourceFile, uncompressed

if TYPE_CHECKING:
    import pyarrow as pa

_INT64 = range(-(2**63), 2**63)
_JSON_TYPES = {bool: "boolean", int: "number", float: "number", str: "string", list: "list", dict: "object"}
_LONGEST = 16 << 20  # characters of a row that are read
_NOT_SPACE = re.compile(r"\S")
_SHOWN = 80  # characters of a row in an error


def unreadable(file: SourceFile) -> DatasetError | None:
    """The error for the first row that is not a JSON object; ``None`` if there is none."""
    try:
        for _ in _rows(file):
            pass
    except DatasetError as error:
        return error
    except OSError:  # the file is damaged
        return None
    return None


def misfit(file: SourceFile, schema: pa.Schema) -> DatasetError | None:
    """The error for the first value that does not fit its column; ``None`` if there is none.

    It is a :class:`~mlengine.datasets.formats.base.NarrowTypeError` for a fraction in a column of integers.
    """
    for line, row in _rows(file):
        for field in schema:
            value = row.get(field.name)
            if value is not None and not _fits(value, field.type):
                return _error(f"{file.where}, line {line:,}", field, value)
    return None


def mixed(file: SourceFile) -> DatasetError | None:
    """The error for the first value whose JSON type differs from its column's earlier values; ``None`` if none does."""
    kinds: dict[str, tuple[str, int]] = {}
    for line, row in _rows(file):
        for name, value in row.items():
            kind = _JSON_TYPES.get(type(value), "")
            before, first = kinds.setdefault(name, (kind, line)) if kind else ("", line)
            if kind != before:
                return DatasetError(
                    f"{file.where}, line {line:,}: column {name!r} has the {kind} {json.dumps(value)[:200]}, and a "
                    f"{before} in line {first:,}",
                    hint="write all values of a column with one type",
                )
    return None


def unexpected(file: SourceFile, schema: pa.Schema) -> DatasetError | None:
    """The error for the first field that is not a column; ``None`` if there is none."""
    names = set(schema.names)
    for line, row in _rows(file):
        for name in row.keys() - names:
            return DatasetError(
                f"{file.where}, line {line:,}: unexpected field {name!r}, which the first rows do not have",
                hint=f"give its type, so that it becomes a column: --dtype {name}=TYPE",
            )
    return None


def _rows(file: SourceFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row with the number of its first line.

    As in pyarrow, a row may span several lines, and a line may contain several rows.

    :raises DatasetError: a row is not an object, or the file is not UTF-8.
    """
    held, size, tried, first = list[str](), 0, 0, 1
    with uncompressed(file) as stream:
        lines = io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", newline="\n")
        while True:
            try:
                text = next(lines, "")
            except UnicodeDecodeError as error:
                raise not_utf8(file) from error
            held.append(text)
            size += len(text)
            # An incomplete row is decoded again only when it has grown to twice its size. Otherwise, each new line
            # would decode the whole row.
            if text and size <= _LONGEST and not (text.rstrip().endswith("}") and size >= 2 * tried):
                continue
            rows, rest, first = _decoded("".join(held), file, first)
            yield from rows
            held, size, tried = [rest], len(rest), len(rest)
            if rest and (not text or size > _LONGEST):
                raise _wrong(file, first, "the row is not complete", rest)
            if not text:
                return


def _decoded(text: str, file: SourceFile, line: int) -> tuple[list[tuple[int, dict[str, Any]]], str, int]:
    """The rows of ``text``, which begins in ``line``, with their line numbers.

    Also returns the rest of the text, which is an incomplete last row, and its line number.
    """
    rows: list[tuple[int, dict[str, Any]]] = []
    at = 0
    while found := _NOT_SPACE.search(text, at):
        begin = found.start()
        line += text.count("\n", at, begin)
        try:
            row, at = _DECODER.raw_decode(text, begin)
        except json.JSONDecodeError as error:
            if error.pos >= len(text.rstrip()) and text[begin] != "[":
                return rows, text[begin:], line
            if text[begin] == "[":
                raise _wrong(file, line, "the row is not an object", text[begin:]) from error
            raise _wrong(file, line + text.count("\n", begin, error.pos), error.msg, text[begin:]) from error
        except (ValueError, RecursionError) as error:
            raise _wrong(file, line, str(error), text[begin:]) from error
        if not isinstance(row, dict):
            raise _wrong(file, line, "the row is not an object", text[begin:])
        rows.append((line, row))
        line += text.count("\n", begin, at)
    return rows, "", line + text.count("\n", at)


def _wrong(file: SourceFile, line: int, what: str, text: str) -> DatasetError:
    return DatasetError(
        f"{file.where}, line {line:,}: {what}: {text.strip()[:_SHOWN]}",
        hint="write one JSON object a line"
        + ("; of an array: jq -c '.[]' OLD.json > NEW.jsonl" if text.startswith("[") else ""),
    )


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a JSON object.

    :raises ValueError: a field occurs twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_fields)


def _fits(value: Any, kind: pa.DataType) -> bool:
    """Whether a value has the JSON type that the column needs."""
    import pyarrow as pa

    types = pa.types
    if types.is_boolean(kind):
        return isinstance(value, bool)
    if types.is_integer(kind):
        return isinstance(value, int) and not isinstance(value, bool) and value in _INT64
    if types.is_floating(kind):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if types.is_string(kind) or types.is_timestamp(kind):
        return isinstance(value, str)
    return True


def _error(where: str, field: pa.Field, value: Any) -> DatasetError:
    import pyarrow as pa

    kind = column_of(field, where).dtype
    text = f"{where}: column {field.name!r} has the value {json.dumps(value)[:200]}, and its type is {kind}"
    if isinstance(value, float) and pa.types.is_integer(field.type):
        return NarrowTypeError(text, field.name, "float64")
    return DatasetError(text, hint=f"correct the value; or set the column's type: --dtype {field.name}=TYPE")
