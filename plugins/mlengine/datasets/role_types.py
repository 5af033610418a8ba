"""Checks that the columns of a version have types that fit their roles, without reading rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlengine.core.dataset import Column, Schema
from mlengine.core.errors import DatasetError
from mlengine.datasets.formats.base import Format

if TYPE_CHECKING:
    import pyarrow as pa


def check_key(file_format: Format, schema: pa.Schema, key: str | None) -> None:
    """Check that reading does not convert the key to float, because different keys would become equal.

    :param schema: the columns of the files.
    :raises DatasetError: the key has decimals, or a format without types has numbers that are not int64.
    """
    import pyarrow as pa

    if key is None or key not in schema.names:
        return
    kind = schema.field(key).type
    if not (pa.types.is_decimal(kind) or (pa.types.is_floating(kind) and not file_format.typed)):
        return
    hint = f"read it as a string: --dtype {key}=string"
    if file_format.name == "jsonl":
        hint = f'write its values as strings: "{key}": "…"'
    raise DatasetError(
        f"the column {key!r} for --key has numbers that would be read as float64, so that different keys may be equal",
        hint=hint,
    )


def check_types(schema: Schema, task: str | None) -> None:
    """Check the types of target, time and weight.

    :param task: the given task, or that of the previous version; ``None`` to derive it from the data.
    :raises DatasetError: one of these columns has a type that does not fit.
    """
    columns: Mapping[str, Column] = {column.name: column for column in schema.columns}
    if schema.target is not None and task != "none":
        _check_target(columns[schema.target])
    if schema.time is not None:
        _check_time(columns[schema.time])
    if schema.weight is not None and (columns[schema.weight].shape or not columns[schema.weight].numeric):
        raise DatasetError(
            f"the column {schema.weight!r} for --weight is {columns[schema.weight]}; weights are numbers",
            hint=f"name another column; or, if it has numbers as strings: --dtype {schema.weight}=float64",
        )


def _check_target(column: Column) -> None:
    """Check the type of the target.

    :raises DatasetError: no task has targets of this type.
    """
    if column.shape:
        raise DatasetError(
            f"the target {column.name!r} is {column}: it has several values in each row, and no task has such targets",
            hint="write one value a row, and each other value as a column; or --task none, without metrics",
        )
    if column.dtype in {"binary", "timestamp", "date"}:
        hint = "write it as a number, or as a string for classes; or --task none, without metrics"
        if column.dtype == "binary":
            hint = f"if it is text: --dtype {column.name}=string; or --task none, without metrics"
        raise DatasetError(
            f"the target {column.name!r} is {column.dtype}; targets are numbers, strings or truth values", hint=hint
        )


def _check_time(column: Column) -> None:
    """Check the type of the time column.

    :raises DatasetError: the values have no order in time.
    """
    if column.shape:
        raise DatasetError(
            f"the column {column.name!r} for --time is {column}: it has several values in each row",
            hint="name a column with one time a row",
        )
    if column.dtype in {"string", "binary"}:
        raise DatasetError(
            f"the column {column.name!r} for --time has text, whose order is not that of times",
            hint=f"read it as times: --dtype {column.name}=timestamp",
        )
