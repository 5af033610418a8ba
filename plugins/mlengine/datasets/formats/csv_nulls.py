"""Detects missing values in CSV: empty fields and, in columns that are not strings, also some words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

MISSING = ("", "NA", "NaN", "nan", "null", "NULL")


def with_nulls(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with nulls for empty fields of string columns, and for :data:`MISSING` in strings that will be cast."""
    import pyarrow as pa

    columns = zip(batch.columns, batch.schema.names, strict=True)
    arrays = [_nulls(array, schema.field(name).type) if _is_text(array.type) else array for array, name in columns]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _nulls(array: pa.Array, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = _is_text(kind)
    missing = pc.equal(pc.binary_length(array), 0) if text else pc.is_in(array, pa.array(MISSING, array.type))
    return pc.if_else(missing, pa.scalar(None, array.type), array) if pc.any(missing).as_py() else array


def values_of(array: pa.Array) -> pa.Array:
    """The values of ``array`` that are not in :data:`MISSING`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return array.filter(pc.invert(pc.is_in(array, pa.array(MISSING))))


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))
