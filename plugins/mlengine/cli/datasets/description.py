"""Describes a dataset version for a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator

from mlengine.cli.documents import VersionDocument
from mlengine.core import plaintext
from mlengine.core.dataset import ColumnStatistics, Manifest, Split
from mlengine.core.layout import dataset_dir
from mlengine.core.plural import first_of, number_of

_TOP = 5


def version_document(bucket: str, manifest: Manifest) -> VersionDocument:
    """The version as JSON."""
    heldout = manifest.splits.get("heldout")
    return {
        "name": manifest.name,
        "version": manifest.version,
        "uri": dataset_dir(bucket, manifest.name, manifest.version),
        "digest": manifest.digest,
        "created": manifest.created,
        "train_rows": manifest.train.rows,
        "heldout_rows": None if heldout is None else heldout.rows,
        "manifest": manifest.to_json(),
    }


def one_line(manifest: Manifest) -> str:
    """The version in one line."""
    heldout = f", {number_of(manifest.splits['heldout'].rows, 'held-out row')}" if "heldout" in manifest.splits else ""
    reference = " by reference" if manifest.by_reference else ""
    train = number_of(manifest.train.rows, "training row")
    place = f"{manifest.name}/{manifest.version}: {manifest.format}{reference}"
    return f"{place}, {train}{heldout}, digest {manifest.digest[:12]}"


def describe(bucket: str, manifest: Manifest) -> Iterator[str]:
    """The lines that describe a version: its schema, splits, statistics and checks.

    Line breaks in values are made visible.
    """
    return map(plaintext.escaped, _lines(bucket, manifest))


def _lines(bucket: str, manifest: Manifest) -> Iterator[str]:
    schema = manifest.schema
    roles = {"target": schema.target, "key": schema.key, "time": schema.time, "weight": schema.weight}
    named = ", ".join(f"{role} {column}" for role, column in roles.items() if column)
    fields = {
        "dataset": f"{manifest.name}/{manifest.version}",
        "uri": dataset_dir(bucket, manifest.name, manifest.version),
        "registered": manifest.created,
        "license": manifest.license,
        "source": manifest.source,
        "digest": manifest.digest,
        "files": f"{manifest.format}{f', by reference under {manifest.root}' if manifest.root else ''}",
        "task": f"{manifest.task}{f' ({named})' if named else ''}",
        "held out": f"{manifest.heldout_policy}",
    }
    if schema.classes is not None:
        fields["classes"] = f"{len(schema.classes)}: {first_of(schema.classes, 20)}"
    for name, value in fields.items():
        yield f"{name + ':':<12}{value}"
    for name, split in manifest.splits.items():
        yield ""
        files, size = number_of(len(split.files), "file"), number_of(split.size, "byte")
        yield f"{name}: {number_of(split.rows, 'row')}, {files}, {size}, {manifest.format}"
        yield from _columns(manifest, split)
    failed = [check for check in manifest.checks if not check.passed]
    yield ""
    yield f"checks:     {len(manifest.checks)} run, {len(failed)} failed and accepted"
    for exception in manifest.exceptions:
        yield f"{'exception:':<12}{exception.check}: {exception.found}. Reason: {exception.reason}"


def _columns(manifest: Manifest, split: Split) -> Iterator[str]:
    names = {column.name: plaintext.escaped(column.name) for column in manifest.schema.columns}
    width = max(map(len, names.values()), default=0)
    for column in manifest.schema.columns:
        statistics = split.statistics.get(column.name)
        text = "" if statistics is None else "; ".join(_described(statistics))
        yield f"  {names[column.name]:<{width}}  {column!s:<14} {text}".rstrip()


def _described(statistics: ColumnStatistics) -> Iterator[str]:
    if statistics.nulls:
        yield number_of(statistics.nulls, "null")
    if statistics.infinite:
        yield f"{statistics.infinite:,} infinite"
    if statistics.min is not None:
        yield f"{_short(statistics.min)} to {_short(statistics.max)}"
    if statistics.mean is not None:
        median = statistics.quantiles[len(statistics.quantiles) // 2] if statistics.quantiles else None
        yield f"mean {_short(statistics.mean)}" + (f", median {_short(median)}" if median is not None else "")
    if statistics.distinct is not None:
        yield f"{statistics.distinct:,} distinct"
    if statistics.top and (statistics.mean is None or len(statistics.top) <= _TOP):
        most = ", ".join(f"{_short(value)} ({rows:,})" for value, rows in statistics.top[:_TOP])
        yield f"most frequent {most}"


def rows_text(split: Split) -> str:
    """The number of rows of a split, for display."""
    return "uncounted" if split.rows is None else f"{split.rows:,}"


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:40]
