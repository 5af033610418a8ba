"""What is wrong with a JSON Lines file, with the line that it is wrong in.

pyarrow counts rows from the beginning of a block, and names no column for a number that it cannot convert, so the file
is read again.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import DatasetError
from mlengine.datasets.arrow import column_of
from mlengine.datasets.formats.base import NarrowTypeError
from mlengine.datasets.sources import SourceFile, uncompressed

if TYPE_CHECKING:
    import pyarrow as pa

_INT64 = range(-(2**63), 2**63)


def misfit(file: SourceFile, schema: pa.Schema) -> DatasetError | None:
    """The error for the first value that does not fit its column; ``None`` if there is none.

    It is a :class:`~mlengine.datasets.formats.base.NarrowTypeError` for a fraction in a column of integers.
    """
    with uncompressed(file) as stream:
        for number, line in enumerate(io.BufferedReader(stream), 1):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            for field in schema if isinstance(row, dict) else ():
                value = row.get(field.name)
                if value is not None and not _fits(value, field.type):
                    return _error(f"{file.where}, line {number:,}", field, value)
    return None


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
