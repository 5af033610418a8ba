"""Writes one column of the held-out rows to the files that the scoring process maps into memory.

Data is appended to the files, which are not mapped here: for rows that are written once, that takes a third of the
time. No file stays open, so a table may have more columns than a process may have open files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa


class ColumnFile:
    """Writes one column, as :mod:`mlengine.validation.scoring.rows` describes.

    :param stem: the stem of the file names.
    :ivar dtype: NumPy's name of the type, ``string`` or ``bytes``; known after the first batch.
    :ivar shape: the shape of one value.
    """

    def __init__(self, name: str, stem: str, folder: Path) -> None:
        self.name, self.stem, self.folder = name, stem, folder
        self.dtype, self.shape = "", ()
        self._info: dict[str, Any] = {}
        self._rows = self._end = 0
        self._has_missing = False

    def append(self, column: pa.Array) -> None:
        """Append the values of a batch.

        :raises DatasetError: a value cannot be given to a model: a missing tensor, or a list of variable length.
        """
        column = decoded(column)
        self._check(column)
        if column.null_count or self._has_missing:
            self._append_valid(column)
        kind = _text_kind(column.type)
        if kind:
            self._append_text(kind, column)
        else:
            self._append_array(_array(column))
        self._rows += len(column)

    def close(self) -> dict[str, Any]:
        """The column's entry in ``columns.json``."""
        return {"name": self.name, **self._info}

    def _check(self, column: pa.Array) -> None:
        import pyarrow as pa

        kind = column.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            raise DatasetError(
                f"column {self.name!r} of the held-out set has lists of any length ({kind}), which no model is given",
                hint="register a version whose lists have one length, or without the column",
            )
        if isinstance(kind, pa.FixedShapeTensorType) or pa.types.is_fixed_size_list(kind):
            row = _incomplete(column)
            if row is not None:
                raise DatasetError(
                    f"column {self.name!r} of the held-out set has no value, or not all, in row {self._rows + row}; "
                    "a tensor cannot be missing",
                    hint="register a version without such rows, or without the column",
                )

    def _append_valid(self, column: pa.Array) -> None:
        """Append a boolean for each row: whether it has a value. All rows before the first missing value have one."""
        import numpy as np

        if not self._has_missing:
            self._has_missing = True
            self._append("valid", np.ones(self._rows, bool))
        self._append("valid", column.is_valid().to_numpy(zero_copy_only=False))

    def _append_text(self, kind: str, column: pa.Array) -> None:
        import numpy as np

        if not self.dtype:
            self.dtype = self._info["kind"] = kind
        if not self._rows:
            self._append("offsets", np.zeros(1, np.int64))
        content, ends = _bytes(column)
        self._append("data", content)
        self._append("offsets", ends + self._end)
        self._end += len(content)

    def _append_array(self, values: Any) -> None:
        from numpy.lib import format as npy

        if not self.dtype:
            self.dtype, self.shape = values.dtype.name, tuple(values.shape[1:])
            self._info |= {"kind": "array", "dtype": npy.dtype_to_descr(values.dtype), "shape": list(self.shape)}
        self._append("data", values)

    def _append(self, part: str, values: Any) -> None:
        import numpy as np

        name = self._info.setdefault(part, f"{self.stem}.{part}")
        with (self.folder / name).open("ab", buffering=0) as file:
            file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def _incomplete(column: pa.Array) -> int | None:
    """The first row without a tensor, or whose integer tensor has a missing element; ``None`` if there is none.

    A missing element of a float tensor is allowed: it becomes NaN.
    """
    import pyarrow as pa

    if column.null_count:
        return int(column.is_null().index(True).as_py())
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    flat = storage.flatten()
    if not flat.null_count or pa.types.is_floating(flat.type):
        return None
    return int(flat.is_null().index(True).as_py()) // int(storage.type.list_size)


def decoded(column: pa.Array) -> pa.Array:
    """The values of a dictionary-encoded column."""
    import pyarrow as pa

    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _text_kind(kind: pa.DataType) -> str:
    """The kind of a text column: ``string`` or ``bytes``; empty for any other type."""
    import pyarrow as pa

    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind):
        return "string"
    return "bytes" if types.is_binary(kind) or types.is_large_binary(kind) else ""


def _array(column: pa.Array) -> Any:
    """A column as a NumPy array, in which missing integers and booleans are 0, floats NaN, and times NaT."""
    import pyarrow as pa

    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        return column.to_numpy_ndarray()
    if pa.types.is_fixed_size_list(kind):
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), kind.list_size)
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    if column.null_count and (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        column = column.fill_null(pa.scalar(0).cast(kind))
    return column.to_numpy(zero_copy_only=False)


def _bytes(column: pa.Array) -> tuple[Any, Any]:
    """The bytes of all values, and the position at which each value ends."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.large_string()).view(pa.large_binary())
    column = column.cast(pa.large_binary())
    column = column.fill_null(b"") if column.null_count else column
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    content = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)[int(ends[0]) : int(ends[-1])]
    return content, ends[1:] - ends[0]
