"""Lists the differences between two versions, for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlengine.core.dataset.files import Split
from mlengine.core.dataset.manifest import Manifest
from mlengine.core.dataset.schema import Column, Schema
from mlengine.core.dataset.statistics import ColumnStatistics
from mlengine.core.plural import first_of, number_of

_SHOWN_VALUES = 12


@dataclass(frozen=True)
class Difference:
    """One difference between two versions."""

    field: str
    old: str
    new: str


def diff(old: Manifest, new: Manifest) -> list[Difference]:
    """The differences between ``old`` and ``new`` in terms, schema, files and statistics.

    The list is empty if a trainer would see the same data. Version, time of creation and compression are not compared.
    """
    pairs: list[tuple[str, object, object]] = [
        ("name", old.name, new.name),
        ("license", old.license, new.license),
        ("source", old.source, new.source),
        ("format", old.format, new.format),
        ("task", old.task, new.task),
        ("heldout", old.heldout_policy, new.heldout_policy),
        *_schema(old.schema, new.schema),
    ]
    for name in dict.fromkeys([*old.splits, *new.splits]):
        pairs += _split(name, old.splits.get(name), new.splits.get(name), new.schema.target)
    return [Difference(field, _text(a), _text(b)) for field, a, b in pairs if a != b]


def _schema(old: Schema, new: Schema) -> Iterator[tuple[str, object, object]]:
    before, after = ({column.name: column for column in schema.columns} for schema in (old, new))
    for name in dict.fromkeys([*before, *after]):
        yield f"column {name}", _column(before.get(name)), _column(after.get(name))
    for role in ("target", "key", "time", "weight"):
        yield role, getattr(old, role), getattr(new, role)
    if old.classes != new.classes:
        yield "classes", _some(old.classes), _some(new.classes)


def _column(column: Column | None) -> str | None:
    return None if column is None else f"{column}{', nullable' if column.nullable else ''}"


def _split(name: str, old: Split | None, new: Split | None, target: str | None) -> Iterator[tuple[str, object, object]]:
    if old is None or new is None:
        yield f"split {name}", _rows(old), _rows(new)
        return
    yield f"{name}.rows", old.rows, new.rows
    if all(file.column for file in (*old.files, *new.files)):
        for before, after in zip(old.files, new.files, strict=False):
            yield f"{name}.{after.column}", before.identity[:12], after.identity[:12]
    else:
        yield f"{name}.files", len(old.files), len(new.files)
        yield f"{name}.content", old.identity[:12], new.identity[:12]
    for column in old.statistics:
        if column in new.statistics:
            pair = old.statistics[column], new.statistics[column]
            yield from _statistics(f"{name}.{column}", *pair, old.rows, new.rows, classes=column == target)


def _rows(split: Split | None) -> str | None:
    return None if split is None else number_of(split.rows, "row")


def _statistics(
    field: str, old: ColumnStatistics, new: ColumnStatistics, before: int | None, after: int | None, *, classes: bool
) -> Iterator[tuple[str, object, object]]:
    if old.nulls != new.nulls:
        yield f"{field} nulls", _share(old.nulls, before), _share(new.nulls, after)
    for name in ("min", "max", "mean"):
        yield f"{field} {name}", _short(getattr(old, name)), _short(getattr(new, name))
    if old.top and new.top:
        counts = old.counts, new.counts
        values = sorted({**counts[0], **counts[1]}, key=lambda value: (str(type(value)), value))
        for value in values if classes else [value for value, _ in new.top[:_SHOWN_VALUES]]:
            if value in counts[0] and value in counts[1]:
                yield f"{field} {value}", _share(counts[0][value], before), _share(counts[1][value], after)
            elif classes:
                yield f"{field} {value}", counts[0].get(value), counts[1].get(value)


def _share(count: int | None, rows: int | None) -> str:
    if count is None or not rows:
        return _text(count)
    return f"{count} ({100 * count / rows:.2f} %)"


def _short(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def _some(values: tuple[object, ...] | None) -> str:
    if values is None:
        return _text(None)
    return f"{len(values)}: {first_of(values, _SHOWN_VALUES)}"


def _text(value: object) -> str:
    return "-" if value is None else str(value)
