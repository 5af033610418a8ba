"""What changed between two versions row by row: rows that came, went, or were given another target.

Rows are compared by hash, wherever they stand. Memory: some 100 bytes a row.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from mlengine.core.errors import DatasetError
from mlengine.datasets.reading import SplitReader
from mlengine.datasets.row_hashes import row_hashes


@dataclass(frozen=True)
class RowDiff:
    """Counts of rows. ``relabelled``: features of both versions whose targets are not the same in both."""

    kept: int
    added: int
    removed: int
    relabelled: int


def diff_rows(old: SplitReader, new: SplitReader) -> RowDiff:
    """Compare the rows of two versions of a split.

    :raises DatasetError: their columns are not the same, so that no row can be equal.
    """
    if old.schema.columns != new.schema.columns or old.schema.target != new.schema.target:
        raise DatasetError(
            "the versions have different columns or targets", hint="compare them without their rows: without --rows"
        )
    before, after = _rows(old), _rows(new)
    features_before, features_after = _targets(before), _targets(after)
    both = features_before.keys() & features_after.keys()
    kept = sum(min(features_before[row].total(), features_after[row].total()) for row in both)
    return RowDiff(
        kept=kept,
        added=after.total() - kept,
        removed=before.total() - kept,
        relabelled=sum(set(features_before[row]) != set(features_after[row]) for row in both),
    )


def _rows(reader: SplitReader) -> Counter[tuple[int, int]]:
    """How often each row occurs, as the hashes of its features and of its target."""
    schema = reader.schema
    features = tuple(column for column in schema.columns if column.name not in (schema.target, schema.key))
    target = tuple(column for column in schema.columns if column.name == schema.target)
    found: Counter[tuple[int, int]] = Counter()
    for batch in reader.batches(1 << 14):
        found.update(zip(row_hashes(batch, features).tolist(), row_hashes(batch, target).tolist(), strict=True))
    return found


def _targets(rows: Counter[tuple[int, int]]) -> dict[int, Counter[int]]:
    targets: dict[int, Counter[int]] = defaultdict(Counter)
    for (features, target), count in rows.items():
        targets[features][target] += count
    return dict(targets)
