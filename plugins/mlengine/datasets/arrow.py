"""Converts between the columns of a manifest and Arrow types."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlengine.core.dataset import DTYPES, Column, Schema
from mlengine.core.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

_NO_COUNTERPART = "write it as scalars, strings or lists of numbers; or leave the column out"


def arrow_schema(schema: Schema, columns: Sequence[str] | None = None) -> pa.Schema:
    """The Arrow schema of a version's rows.

    :param columns: only these columns, in this order.
    """
    import pyarrow as pa

    chosen = schema.columns if columns is None else [schema.column(name) for name in columns]
    return pa.schema([pa.field(column.name, arrow_type(column), nullable=column.nullable) for column in chosen])


def arrow_type(column: Column) -> pa.DataType:
    """The Arrow type of a column's array."""
    import pyarrow as pa

    value = scalar_type(column.dtype)
    if not column.shape:
        return value
    if column.shape == (-1,):
        return pa.list_(value)
    if len(column.shape) == 1:
        return pa.list_(value, column.shape[0])
    return pa.fixed_shape_tensor(value, column.shape)


def scalar_type(dtype: str) -> pa.DataType:
    """The Arrow type of one value of ``dtype``.

    :raises DatasetError: there is no such dtype.
    """
    import pyarrow as pa

    if dtype not in DTYPES:
        raise DatasetError(f"not a type of columns: {dtype!r}", hint=f"use one of {', '.join(DTYPES)}")
    special = {
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us", "UTC"),
        "date": pa.date32(),
        "string": pa.string(),
        "binary": pa.binary(),
    }
    return special.get(dtype) or getattr(pa, dtype)()


def column_of(field: pa.Field, where: str) -> Column:
    """The manifest column for an Arrow field.

    :param where: the file's name in error messages.
    :raises DatasetError: the field's type has no counterpart, such as a struct.
    """
    import pyarrow as pa

    kind: Any = field.type
    shape: tuple[int, ...] = ()
    if isinstance(kind, pa.FixedShapeTensorType):
        kind, shape = kind.value_type, tuple(kind.shape)
    elif pa.types.is_fixed_size_list(kind):
        kind, shape = kind.value_type, (kind.list_size,)
    elif any(matches(kind) for matches in _list_types()):
        kind, shape = kind.value_type, (-1,)
    dtype = _dtype(kind)
    if dtype is None or math.prod(shape) == 0:
        hint = _NO_COUNTERPART
        if pa.types.is_duration(kind) and not shape:
            hint = (
                f"read it as the number of its units ({kind.unit}): --dtype {field.name}=int64; or leave the column out"
            )
        raise DatasetError(
            f"{where}: column {field.name!r} has type {field.type}, which a dataset version cannot describe", hint=hint
        )
    return Column(field.name, dtype, shape, field.nullable)


def _list_types() -> tuple[Callable[[pa.DataType], bool], ...]:
    from pyarrow import types

    return types.is_list, types.is_large_list, types.is_list_view, types.is_large_list_view


def _dtype(kind: Any) -> str | None:
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    elif isinstance(kind, pa.JsonType):
        kind = kind.storage_type
    if types.is_integer(kind):
        return str(kind)
    if types.is_floating(kind):
        return f"float{kind.bit_width}"
    rest = (
        ("bool", lambda one: types.is_boolean(one) or isinstance(one, pa.Bool8Type)),
        ("string", lambda one: isinstance(one, pa.UuidType)),
        ("float64", types.is_decimal),
        ("string", lambda one: types.is_string(one) or types.is_large_string(one) or types.is_string_view(one)),
        ("string", types.is_null),
        ("string", types.is_time),  # a time of day, as in CSV
        ("binary", lambda one: types.is_binary(one) or types.is_large_binary(one) or types.is_binary_view(one)),
        ("binary", types.is_fixed_size_binary),
        ("timestamp", types.is_timestamp),
        ("date", types.is_date),
    )
    return next((name for name, matches in rest if matches(kind)), None)


def conform(batch: pa.RecordBatch, schema: pa.Schema, where: str) -> pa.RecordBatch:
    """Convert a batch to the columns and types of ``schema``. Columns are matched by name.

    :raises DatasetError: a column is missing, or a value does not fit; the error names both.
    """
    import pyarrow as pa

    arrays = []
    for field in schema:
        if batch.schema.get_field_index(field.name) < 0:
            raise DatasetError(
                f"{where}: there is no column {field.name!r}; columns: {', '.join(batch.schema.names)}",
                hint="all files of a version need the same columns",
            )
        array = batch.column(field.name)
        try:
            arrays.append(array if array.type == field.type else _cast(array, field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            hint = f"set its type when the version is registered: --dtype {field.name}=TYPE"
            if pa.types.is_time(array.type):
                hint = f"a time of day has no date: write both, or leave out --dtype {field.name}"
            elif pa.types.is_nested(array.type) or isinstance(array.type, pa.FixedShapeTensorType):
                hint = _NO_COUNTERPART
            raise DatasetError(
                f"{where}: column {field.name!r} is {array.type}, not {field.type}: {error}", hint=hint
            ) from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _list_of(views: pa.Array) -> pa.Array:
    """The same values as a list array. The cast of Arrow 26 ignores the sizes of list views (apache/arrow#50994)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.list_value_length(views), 0)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), views.flatten(), mask=views.is_null())


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(array, pa.UuidArray) and pa.types.is_string(kind):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], kind)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_list_view(array.type) or pa.types.is_large_list_view(array.type):
        array = _list_of(array)
    if isinstance(kind, pa.FixedShapeTensorType):
        return pa.ExtensionArray.from_storage(kind, array.cast(kind.storage_type))
    # Nanoseconds become microseconds, and a time without a zone is interpreted as UTC.
    return array.cast(options=pc.CastOptions(kind, allow_time_truncate=pa.types.is_timestamp(kind)))
