"""What changed between two versions row by row: rows that came, went, were given another target or other features.

Rows are the same if they have the same key; without a key, if they have the same features. Keys, features and targets
are compared by hash, wherever the rows stand. Memory: some 600 bytes a row.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from mlengine.core.dataset import Column, Manifest, Schema
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


def incomparable(old: Manifest | SplitReader, new: Manifest | SplitReader) -> str:
    """Why no rows of the two versions can be equal; empty if they can.

    The order of the columns is no reason, nor is whether they may be null: a CSV file does not say it.
    """
    if "files" in (old.format, new.format):
        return "a version of files has no rows"
    before, after = ({one.name: str(one) for one in version.schema.columns} for version in (old, new))
    if before != after:
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        return f"the versions have different columns: {', '.join(names)}"
    if old.schema.target != new.schema.target:
        return f"the versions have different targets: {old.schema.target} and {new.schema.target}"
    return ""


def diff_rows(old: SplitReader, new: SplitReader) -> RowDiff:
    """Compare the rows of two versions of a split.

    The key of pictures is their path, which has their class: they are compared by content. So are the rows of versions
    with different keys, without both keys.

    :raises DatasetError: no row can be equal (:func:`incomparable`).
    """
    if reason := incomparable(old, new):
        raise DatasetError(reason, hint="compare them without their rows: without --rows")
    key = old.schema.key if old.schema.key == new.schema.key and new.format != "images" else None
    left_out = {old.schema.target, old.schema.key, new.schema.key}
    features = tuple(column for column in old.schema.columns if column.name not in left_out)
    before, after = (_rows(reader, old.schema, key, features) for reader in (old, new))
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


def _rows(
    reader: SplitReader, schema: Schema, key: str | None, features: tuple[Column, ...]
) -> dict[int, Counter[tuple[int, int]]]:
    """How often each row occurs, as the hashes of its features and of its target, by the hash of what identifies it.

    :param schema: of the older version, whose order of columns the hashes depend on.
    :param key: the column that identifies a row; by default, the features do.
    """
    target = tuple(column for column in schema.columns if column.name == schema.target)
    keys = features if key is None else (schema.column(key),)
    found: dict[int, Counter[tuple[int, int]]] = defaultdict(Counter)
    for batch in reader.batches(1 << 14):
        hashes = [row_hashes(batch, columns).tolist() for columns in (keys, features, target)]
        for row, *values in zip(*hashes, strict=True):
            found[row][values[0], values[1]] += 1
    return dict(found)
