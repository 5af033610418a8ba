"""The held-out rows as files of one column each, memory-mapped: what a predictor is fed with.

``columns.json`` names the files. A number or a tensor is a ``.npy`` of shape (rows, …). Strings and bytes are one file
of all their bytes and a ``.npy`` of offsets. Where values are missing, a ``.npy`` of booleans says which are there.
Written by :mod:`mlengine.validation.heldout`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FEWEST, MOST = 500, 8192  # rows a call, unless configured
CALL_BYTES = 4 * 1024**2  # of the values of one call

Batch = dict[str, Any]


class Column:
    """One column.

    :param info: ``name``, ``kind`` (``array``, ``string`` or ``bytes``), ``data`` and, if it has them, ``offsets`` and
        ``valid``: file names in ``folder``.
    """

    def __init__(self, folder: Path, info: dict[str, Any]) -> None:
        import numpy as np

        self.np = np
        self.name, self.kind = info["name"], info["kind"]
        self.valid = np.load(folder / info["valid"], mmap_mode="r") if info.get("valid") else None
        data = folder / info["data"]
        if self.kind == "array":
            self.data = np.load(data, mmap_mode="r")
            self.shape, self.dtype = self.data.shape[1:], self.data.dtype.name
            return
        self.data = np.memmap(data, np.uint8, "r") if data.stat().st_size else np.empty(0, np.uint8)
        self.offsets = np.load(folder / info["offsets"], mmap_mode="r")
        self.shape, self.dtype = (), self.kind

    def slice(self, start: int, stop: int) -> Any:
        """The values of rows ``start`` to ``stop``. A missing float is NaN, a missing string ``None``."""
        np = self.np
        values = np.array(self.data[start:stop]) if self.kind == "array" else self._objects(start, stop)
        if self.valid is None:
            return values
        missing = ~np.asarray(self.valid[start:stop])
        if not missing.any():
            return values
        if self.kind == "array":
            values = values if values.dtype.kind == "f" else values.astype(np.float64)
            values[missing] = np.nan
        else:
            values[missing] = None
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
        self.columns = {item["name"]: Column(folder, item) for item in info["columns"]}

    def batch(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Batch:
        """Rows ``start`` to ``stop``.

        :param columns: only these.
        """
        return {name: self.columns[name].slice(start, stop) for name in columns or self.columns}

    def batch_size(self, columns: Sequence[str] | None = None) -> int:
        """Rows a call: more for tables, where a call takes longer than the computation. A model's intermediate values
        of images and other tensors are large, so these get :data:`FEWEST`.
        """
        parts = [self.columns[name] for name in columns or self.columns]
        if any(column.shape for column in parts):
            return FEWEST
        row = sum(column.data.nbytes for column in parts) / max(self.count, 1)
        return max(FEWEST, min(MOST, int(CALL_BYTES / max(row, 1))))

    def take(self, indices: list[int]) -> Batch:
        """Single rows, by number."""
        np = next(iter(self.columns.values())).np
        parts = {name: [column.slice(row, row + 1) for row in indices] for name, column in self.columns.items()}
        return {name: np.concatenate(values) for name, values in parts.items()}
