"""Manifests of format 1: IDX images with one label each, in the splits ``train`` and ``heldout``."""

from __future__ import annotations

from dataclasses import replace

from mlengine.core.dataset.fields import Fields
from mlengine.core.dataset.files import DataFile, Split
from mlengine.core.dataset.schema import Column, Schema, Value
from mlengine.core.dataset.statistics import ColumnStatistics

FILE_FORMATS = ("idx",)


def content(fields: Fields) -> tuple[Schema, dict[str, Split]]:
    """Convert the schema and the splits to those of format 2.

    :raises DatasetError: a field is missing or wrong; the error names it.
    """
    splits = Fields(fields.value("splits"), f"{fields.where}: splits")
    classes = fields.count("classes", at_least=2)
    read = {name: _split(splits.value(name), f"{splits.where}.{name}", classes) for name in ("train", "heldout")}
    image = Column("image", fields.text("dtype"), fields.counts("shape", at_least=1))
    schema = Schema((image, Column("label", "uint8")), target="label", classes=tuple(range(classes)))
    return schema, read


def _split(data: object, where: str, classes: int) -> Split:
    fields = Fields(data, where)
    rows = fields.count("rows", at_least=1)
    counts = () if fields.absent("label_counts") else fields.counts("label_counts")
    if counts and (len(counts) != classes or sum(counts) != rows):
        raise fields.wrong("label_counts", f"{len(counts)} numbers, sum {sum(counts)}: not {classes}, sum {rows}")
    files = tuple(
        replace(DataFile.from_json(fields.value(kind), f"{where}.{kind}"), column=column, rows=rows)
        for kind, column in (("images", "image"), ("labels", "label"))
    )
    ordered: list[tuple[Value, int]] = sorted(enumerate(counts), key=lambda item: -item[1])
    statistics = {"label": ColumnStatistics(nulls=0, distinct=len(counts), top=tuple(ordered))} if counts else {}
    return Split(rows, files, statistics)
