"""Reads the held-out rows for a predictor from memory-mapped files, one column each.

``columns.json`` names the files, which have no header. Numbers and tensors are stored as one array of shape (rows, …).
Strings and bytes are stored as the bytes of all values, and rows + 1 offsets as int64. If values are missing, there is
a boolean for each row that says whether it has a value. :mod:`mlengine.validation.column_file` writes these files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

FEWEST, MOST = 500, 8192  # limits of the rows per call, unless configured
CALL_BYTES = 4 * 1024**2  # limit of the values of one call, in bytes

Batch = dict[str, Any]


class Column:
    """One column, whose files are opened on first use.

    :param info: ``name``; ``kind`` (``array``, ``string`` or ``bytes``); for an array ``dtype`` and the ``shape`` of
        one value; and the names of files in ``folder``: ``data`` and, if they exist, ``offsets`` and ``valid``.
    """

    def __init__(self, folder: Path, info: dict[str, Any], rows: int) -> None:
        import numpy as np

        self.np, self.folder, self.info, self.rows = np, folder, info, rows
        self.name, self.kind = info["name"], info["kind"]
        self.shape = tuple(info.get("shape", ()))
        self.dtype = np.dtype(info["dtype"]).name if self.kind == "array" else self.kind

    @cached_property
    def data(self) -> Any:
        path, np = self.folder / self.info["data"], self.np
        if self.kind == "array":
            return np.memmap(path, np.dtype(self.info["dtype"]), "r", shape=(self.rows, *self.shape))
        return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)

    @cached_property
    def offsets(self) -> Any:
        return self.np.memmap(self.folder / self.info["offsets"], self.np.int64, "r")

    @cached_property
    def valid(self) -> Any:
        return self.np.memmap(self.folder / self.info["valid"], bool, "r") if "valid" in self.info else None

    def slice(self, start: int, stop: int) -> Any:
        """The values of rows ``start`` to ``stop``.

        A missing number is NaN, a missing time is NaT, and a missing string is ``None``.
        """
        np = self.np
        values = np.array(self.data[start:stop]) if self.kind == "array" else self._objects(start, stop)
        if self.valid is None:
            return values
        missing = ~np.asarray(self.valid[start:stop])
        if not missing.any():
            return values
        if self.kind != "array":
            values[missing] = None
        elif values.dtype.kind not in "fM":  # values of these types already have NaN and NaT
            values = values.astype(np.float64)
            values[missing] = np.nan
        return values

    def _objects(self, start: int, stop: int) -> Any:
        ends = self.offsets[start : stop + 1].tolist()
        first = ends[0]
        blob = self.data[first : ends[-1]].tobytes()
        parts: list[Any] = [blob[at - first : to - first] for at, to in zip(ends, ends[1:])]
        if self.kind == "string":
            parts = [part.decode() for part in parts]
        values = self.np.empty(len(parts), object)
        values[:] = parts
        return values


class Rows:
    """All held-out rows, without target, weight and key."""

    def __init__(self, folder: Path) -> None:
        info = json.loads((folder / "columns.json").read_text())
        self.count = int(info["rows"])
        self.columns = {item["name"]: Column(folder, item, self.count) for item in info["columns"]}

    def batch(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Batch:
        """The columns of the rows ``start`` to ``stop``.

        :param columns: the names of the columns; by default all.
        """
        return {name: self.columns[name].slice(start, stop) for name in columns or self.columns}

    def batch_size(self, columns: Sequence[str] | None = None) -> int:
        """The number of rows per call.

        It is larger for tables, as a call takes longer than the computation. For images and other tensors, it is
        :data:`FEWEST`, as a model's intermediate values of them are large.
        """
        parts = [self.columns[name] for name in columns or self.columns]
        if any(column.shape for column in parts):
            return FEWEST
        row = sum(column.data.nbytes for column in parts) / max(self.count, 1)
        return max(FEWEST, min(MOST, int(CALL_BYTES / max(row, 1))))

    def too_large(self) -> tuple[str, int, float] | None:
        """The first value that is infinite, or that float32 cannot hold: column, row and value."""
        found = None
        for column in self.columns.values():
            if column.kind != "array" or column.data.dtype.kind != "f":
                continue
            np = column.np
            for start in range(0, self.count if found is None else found[1], MOST):
                values = column.slice(start, min(start + MOST, self.count))
                wrong = np.abs(values) > np.finfo(np.float32).max
                rows = np.flatnonzero(wrong.reshape(len(values), -1).any(axis=1))
                if len(rows) and (found is None or start + rows[0] < found[1]):
                    value = values[rows[0]][wrong[rows[0]]].reshape(-1)[0]
                    found = (column.name, int(start + rows[0]), float(value))
                if len(rows):
                    break
        return found

    def take(self, indices: list[int], columns: Sequence[str] | None = None) -> Batch:
        """The columns of single rows, which are given by number.

        :param columns: the names of the columns; by default all.
        """
        names = list(columns or self.columns)
        parts = {name: [self.columns[name].slice(row, row + 1) for row in indices] for name in names}
        return {name: self.columns[name].np.concatenate(values) for name, values in parts.items()}
