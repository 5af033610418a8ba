"""Rows of two versions, compared by their key or their features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa

from mlengine.core.dataset import Column, Schema
from mlengine.datasets.reading import SplitReader
from mlengine.datasets.row_diff import RowDiff, diff_rows

Rows = list[tuple[int, float, int]]


@dataclass
class Reader:
    """A split whose rows have ``id``, ``x`` and the target ``y``."""

    rows: Rows
    key: str | None = "id"
    format: str = "csv"

    @property
    def schema(self) -> Schema:
        kinds = {"id": "int64", "x": "float64", "y": "int64"}
        return Schema(tuple(Column(name, kind) for name, kind in kinds.items()), target="y", key=self.key)

    def batches(self, rows: int) -> Iterator[Any]:
        del rows
        for row in self.rows:
            yield pa.record_batch([pa.array([value]) for value in row], names=["id", "x", "y"])


def diff(old: Reader, new: Reader) -> RowDiff:
    return diff_rows(cast(SplitReader, old), cast(SplitReader, new))


OLD: Rows = [(1, 0.5, 0), (2, 0.5, 1), (3, 1.5, 0), (3, 2.5, 0)]
NEW: Rows = [(2, 0.5, 0), (1, 0.25, 0), (3, 2.5, 0), (4, 0.5, 1), (4, 0.5, 1)]


def test_by_key_also_if_it_is_not_unique() -> None:
    assert diff(Reader(OLD), Reader(NEW)) == RowDiff(kept=3, added=2, removed=1, relabelled=1, changed=2)
    assert diff(Reader(OLD), Reader(OLD[::-1])) == RowDiff(4, 0, 0, 0, 0)
    assert diff(Reader([]), Reader(NEW)) == RowDiff(0, 5, 0, 0, 0)


def test_by_features_if_only_one_version_has_a_key() -> None:
    """The column is a feature of neither."""
    for keys in (("id", None), (None, "id")):
        old, new = Reader(OLD, keys[0]), Reader(NEW, keys[1])
        assert diff(old, new) == RowDiff(kept=3, added=2, removed=1, relabelled=0, changed=None)
    assert diff(Reader(OLD, None), Reader(NEW, None)) == RowDiff(kept=2, added=3, removed=2, relabelled=1, changed=None)
