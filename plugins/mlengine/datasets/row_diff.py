"""What changed between two versions row by row: rows that came, went, were given another target or other features.

Rows are the same if they have the same key; without a key, if they have the same features. Keys, features and targets
are compared by hash, wherever the rows stand. Memory: some 200 bytes a row.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from mlengine.core.errors import DatasetError
from mlengine.datasets.reading import SplitReader
from mlengine.datasets.row_hashes import row_hashes


@dataclass(frozen=True)
class RowDiff:
    """Counts of rows.

    :param kept: rows of both versions: with the same key; without a key, with the same features.
    :param relabelled: of those, the keys or features whose targets are not the same in both.
    :param changed: of those, the keys whose features are not the same in both; ``None`` without a key.
    """

    kept: int
    added: int
    removed: int
    relabelled: int
    changed: int | None = None


def diff_rows(old: SplitReader, new: SplitReader) -> RowDiff:
    """Compare the rows of two versions of a split.

    The key of pictures is their path, which has their class: they are compared by content.

    :raises DatasetError: their columns are not the same, so that no row can be equal.
    """
    if old.schema.columns != new.schema.columns or old.schema.target != new.schema.target:
        raise DatasetError(
            "the versions have different columns or targets", hint="compare them without their rows: without --rows"
        )
    key = old.schema.key if old.schema.key == new.schema.key and new.format != "images" else None
    before, after = _rows(old, key), _rows(new, key)
    both = before.keys() & after.keys()
    kept = sum(min(before[row].total(), after[row].total()) for row in both)
    return RowDiff(
        kept=kept,
        added=sum(rows.total() for rows in after.values()) - kept,
        removed=sum(rows.total() for rows in before.values()) - kept,
        relabelled=sum(_part(before[row], 1) != _part(after[row], 1) for row in both),
        changed=None if key is None else sum(_part(before[row], 0) != _part(after[row], 0) for row in both),
    )


def _part(rows: Counter[tuple[int, int]], index: int) -> set[int]:
    return {row[index] for row in rows}


def _rows(reader: SplitReader, key: str | None) -> dict[int, Counter[tuple[int, int]]]:
    """How often each row occurs, as the hashes of its features and of its target, by the hash of what identifies it.

    :param key: the column that identifies a row; by default, the features do.
    """
    schema = reader.schema
    features = tuple(column for column in schema.columns if column.name not in (schema.target, schema.key))
    target = tuple(column for column in schema.columns if column.name == schema.target)
    keys = features if key is None else (schema.column(key),)
    found: dict[int, Counter[tuple[int, int]]] = defaultdict(Counter)
    for batch in reader.batches(1 << 14):
        hashes = [row_hashes(batch, columns).tolist() for columns in (keys, features, target)]
        for row, *values in zip(*hashes, strict=True):
            found[row][values[0], values[1]] += 1
    return dict(found)
