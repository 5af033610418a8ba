"""Scans the rows of all splits once, for statistics, equal rows, and the order in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlengine.core.dataset import ColumnStatistics, Schema
from mlengine.core.errors import DatasetError
from mlengine.core.plural import number_of
from mlengine.datasets.arrow import arrow_schema
from mlengine.datasets.discovery import Found
from mlengine.datasets.overlap import HeldoutRows
from mlengine.datasets.row_hashes import compared_columns, row_hashes
from mlengine.datasets.statistics import SplitStatistics

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE_BYTES = 64 << 20  # bytes of a split that are read for statistics if not all rows are read
_BATCH_BYTES = 16 << 20
_MOST_ROWS = 1 << 16

# Called with a short message about the current step.
Progress = Callable[[str], None]


def no_progress(text: str) -> None:
    """A progress function that shows nothing."""
    del text


@dataclass
class SplitScan:
    """The result of scanning one split.

    :param rows: the number of rows; ``None`` if not all rows were read and the files do not contain the number.
    :param read: the number of rows from which the statistics were computed.
    :param infinite: the number of target values that are not finite.
    """

    rows: int | None
    read: int
    statistics: Mapping[str, ColumnStatistics]
    infinite: int = 0


@dataclass
class Scan:
    """The result of scanning all splits.

    :param overlap: the held-out rows that are also training rows; ``None`` if not all rows were read.
    :param newer: the number of training rows that are newer than the first held-out row.
    :param first_heldout: the time of the first held-out row.
    """

    splits: dict[str, SplitScan] = field(default_factory=dict)
    overlap: HeldoutRows | None = None
    newer: int = 0
    first_heldout: Any = None


def scan(found: Found, schema: Schema, rows: str, progress: Progress = no_progress) -> Scan:
    """Read the rows of each split, the held-out ones first.

    :param rows: ``all``, ``sample`` (of each split about :data:`SAMPLE_BYTES`), or ``none``.
    :raises DatasetError: a file is damaged, does not fit the schema, or a split is empty.
    """
    result = Scan()
    order = sorted(found.splits, key=lambda name: name != "heldout")
    if rows == "all" and "heldout" in found.splits:
        result.overlap = HeldoutRows()
    for name in order:
        if found.format.count_rows(found.splits[name]) == 0:
            raise _empty(found, name)
        if rows == "none":
            statistics = found.format.footer_statistics(found.splits[name])
            result.splits[name] = SplitScan(found.format.count_rows(found.splits[name]), 0, statistics)
        else:
            result.splits[name] = _scan_split(found, name, result, schema=schema, rows=rows, progress=progress)
    return result


def _scan_split(found: Found, name: str, result: Scan, *, schema: Schema, rows: str, progress: Progress) -> SplitScan:
    count = found.format.count_rows(found.splits[name])
    statistics = SplitStatistics(schema)
    compared = compared_columns(schema)
    for batch in _batches(found, name, schema, rows):
        statistics.add(batch)
        if result.overlap is not None and name in ("heldout", "train"):
            hashes = row_hashes(batch, compared)
            (result.overlap.add if name == "heldout" else result.overlap.match)(hashes)
        if schema.time is not None:
            _compare_times(batch.column(schema.time), name, result)
        progress(f"{name}: {number_of(statistics.rows, 'row')} read")
    if statistics.rows == 0:
        raise _empty(found, name)
    if name == "heldout" and result.overlap is not None:
        result.overlap.finish()
    if rows == "all" and count not in (None, statistics.rows):
        raise DatasetError(f"split {name}: its files have {statistics.rows:,} rows and say {count:,}")
    total = statistics.rows if rows == "all" else count
    target = statistics.columns.get(schema.target or "")
    infinite = 0 if target is None else target.infinite
    return SplitScan(total, statistics.rows, statistics.finish(), infinite)


def _batches(found: Found, name: str, schema: Schema, rows: str) -> Iterator[pa.RecordBatch]:
    columns = arrow_schema(schema)
    limit = SAMPLE_BYTES if rows == "sample" else None
    return found.format.batches(found.splits[name], columns, _batch_rows(schema), sample_bytes=limit, strict=True)


def _batch_rows(schema: Schema) -> int:
    width = 0
    for column in schema.columns:
        size = 1
        for length in column.shape:
            size *= max(length, 16)
        width += 8 * size if column.numeric else 64 * size
    return max(64, min(_MOST_ROWS, _BATCH_BYTES // max(1, width)))


def _compare_times(array: pa.Array, name: str, result: Scan) -> None:
    import pyarrow.compute as pc

    if name == "heldout":
        first = pc.min(array).as_py()
        if first is not None and (result.first_heldout is None or first < result.first_heldout):
            result.first_heldout = first
    elif name == "train" and result.first_heldout is not None:
        result.newer += pc.sum(pc.greater(array, result.first_heldout)).as_py() or 0


def _empty(found: Found, name: str) -> DatasetError:
    files = ", ".join(file.where for file in found.splits[name][:3])
    return DatasetError(f"split {name!r} has no rows ({files})", hint="write rows, or remove the split")
