"""The manifest: rejected values, the inputs of its digest, and the content of a diff."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from mlengine.core.dataset import (
    CheckException,
    CheckResult,
    Column,
    ColumnStatistics,
    DataFile,
    Manifest,
    Schema,
    Split,
    check_dataset_name,
    check_version_name,
    diff,
)
from mlengine.core.errors import DatasetError


def _split(prefix: str, rows: int) -> Split:
    return Split(
        rows=rows,
        files=(
            DataFile(f"{prefix}-images-idx3-ubyte.gz", 100, "a" * 64, "b" * 64, column="image"),
            DataFile(f"{prefix}-labels-idx1-ubyte.gz", 10, "c" * 64, "d" * 64, column="label"),
        ),
        statistics={"label": ColumnStatistics(nulls=0, distinct=2, top=((0, rows - 1), (1, 1)))},
    )


MANIFEST = Manifest(
    name="mnist",
    version="2026-11-01",
    created="2026-11-01T02:03:04+00:00",
    license="CC BY-SA 3.0",
    source="LeCun, Cortes, Burges",
    format="idx",
    schema=Schema((Column("image", "uint8", (28, 28)), Column("label", "uint8")), target="label", classes=(0, 1)),
    splits={"train": _split("train", 60), "heldout": _split("heldout", 10)},
    task="multiclass",
)
# A table, recorded by reference.
TABLE = Manifest(
    name="churn",
    version="v1",
    created="2026-11-01T02:03:04+00:00",
    license="internal",
    source="warehouse",
    format="parquet",
    schema=Schema(
        (
            Column("id", "string"),
            Column("age", "int64", nullable=True),
            Column("vector", "float32", (-1,)),
            Column("left", "bool"),
            Column("at", "timestamp"),
            Column("w", "float64"),
        ),
        target="left",
        key="id",
        time="at",
        weight="w",
        classes=(False, True),
    ),
    splits={
        "train": Split(
            None,
            (DataFile("train/1.parquet", 9, crc32c="yZRlqg==", generation=7, uri="gs://b/x/train/1.parquet"),),
            {"age": ColumnStatistics(1, 3, 1, 9.5, 4.25, 0.5, (1.0, 9.5), ((1, 2), (3, 1)), sampled=4)},
        )
    },
    task="binary",
    heldout_policy="rolling",
    checks=(CheckResult("rows", True, "4", "> 0", "4 rows"),),
    root="gs://b/x/",
)
FORMAT_1: dict[str, Any] = {
    "format": 1,
    "name": "mnist",
    "version": "2026-11-01",
    "created": "2026-11-01T02:03:04+00:00",
    "file_format": "idx",
    "license": "CC BY-SA 3.0",
    "source": "LeCun, Cortes, Burges",
    "splits": {
        name: {
            "rows": rows,
            "images": {
                "path": f"{name}-images-idx3-ubyte.gz",
                "size": 100,
                "sha256": "a" * 64,
                "content_sha256": "b" * 64,
            },
            "labels": {
                "path": f"{name}-labels-idx1-ubyte.gz",
                "size": 10,
                "sha256": "c" * 64,
                "content_sha256": "d" * 64,
            },
            "label_counts": [rows - 1, 1],
        }
        for name, rows in (("train", 60), ("heldout", 10))
    },
    "shape": [28, 28],
    "dtype": "uint8",
    "classes": 2,
}


@pytest.mark.parametrize("manifest", [MANIFEST, TABLE])
def test_a_manifest_survives_a_round_trip(manifest: Manifest) -> None:
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def test_format_1_has_the_content_and_the_digest_of_format_2() -> None:
    old = Manifest.from_json(FORMAT_1)
    assert (old.schema, old.task, old.heldout_policy) == (MANIFEST.schema, "multiclass", "fixed")
    assert old.digest == MANIFEST.digest
    assert old.train.statistics["label"].counts == {0: 59, 1: 1}
    assert [one.field for one in diff(old, MANIFEST)] == []
    assert Manifest.from_bytes(old.to_bytes()) == old


def test_a_version_without_held_out_rows_is_an_error() -> None:
    with pytest.raises(DatasetError, match="churn/v1 has no split 'heldout'; splits: train"):
        TABLE.heldout  # noqa: B018


def test_exceptions_are_stored_and_do_not_change_the_digest() -> None:
    exception = CheckException("duplicates", "225 of 10000 held-out images are among them.", "few values")
    manifest = replace(MANIFEST, exceptions=(exception,))
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert manifest.digest == MANIFEST.digest
    assert "exceptions" not in MANIFEST.to_json()


@pytest.mark.parametrize(
    "value", ["x", {}, ["x"], [{"check": "duplicates"}], [{"check": "", "found": "", "reason": ""}]]
)
def test_invalid_exceptions_are_refused(value: Any) -> None:
    with pytest.raises(DatasetError, match="exceptions"):
        Manifest.from_json({**MANIFEST.to_json(), "exceptions": value})


@pytest.mark.parametrize("known", [MANIFEST.to_json(), FORMAT_1])
def test_unknown_fields_are_ignored_and_optional_ones_may_be_missing(known: dict[str, Any]) -> None:
    raw = deepcopy(known)
    raw["later"] = {"x": 1}
    for split in raw["splits"].values():
        split.pop("label_counts", None)
        split.pop("statistics", None)
        for file in split.get("files") or (split["images"], split["labels"]):
            del file["content_sha256"]
    manifest = Manifest.from_json(raw)
    assert manifest.train.statistics == {}
    assert manifest.train.file_of("image").identity == "a" * 64


BAD: list[tuple[str, Any, str]] = [
    ("format", 3, "format"),
    ("name", "../x", "dataset name"),
    ("version", "a/b", "dataset version"),
    ("version", "", "version"),
    ("created", "yesterday", "created"),
    ("file_format", "xlsx", "file_format"),
    ("license", " ", "license"),
    ("source", None, "source"),
    ("task", "ranking", "task"),
    ("heldout", "sometimes", "heldout"),
    ("schema.columns", {}, "columns"),
    ("schema.target", "nothing", "target: there is no column 'nothing'"),
    ("schema.classes", [None], "classes"),
    ("schema.columns.0.dtype", "float8", "dtype"),
    ("schema.columns.0.shape", [28, 0], r"shape\[1\]"),
    ("schema.columns.1.name", "image", "same name"),
    ("splits", [], "splits is not an object"),
    ("splits.train", None, "splits.train is not an object"),
    ("splits.train.rows", 0, r"splits.train: rows"),
    ("splits.train.files", [], "files"),
    ("splits.train.statistics.label.top", [[1]], "top"),
    ("splits.train.statistics.label.nulls", -1, "nulls"),
    ("splits.heldout.files.0.path", "/etc/passwd", "path"),
    ("splits.heldout.files.0.path", "../../x", "path"),
    ("splits.heldout.files.0.path", "train-images-idx3-ubyte.gz", "same path"),
    ("splits.heldout.files.0.size", -1, "size"),
    ("splits.heldout.files.1.sha256", "A" * 64, "sha256"),
    ("splits.heldout.files.1.sha256", None, "sha256"),
    ("splits.heldout.files.1.content_sha256", "short", "content_sha256"),
    ("splits.heldout.files.1.uri", "/etc/passwd", "uri"),
]
BAD_1: list[tuple[str, Any, str]] = [
    ("file_format", "parquet", "file_format"),
    ("shape", [], "shape"),
    ("shape", [28, 0], r"shape\[1\]"),
    ("dtype", 8, "dtype"),
    ("classes", True, "classes"),
    ("splits.train.rows", "60", "rows"),
    ("splits.train.label_counts", [1, 1], "label_counts"),
    ("splits.train.label_counts", [60], "label_counts"),
    ("splits.heldout.images.path", "../../x", "path"),
    ("splits.heldout.labels.sha256", "A" * 64, "sha256"),
]


@pytest.mark.parametrize(
    ("known", "field", "value", "named"),
    [(MANIFEST.to_json(), *case) for case in BAD] + [(FORMAT_1, *case) for case in BAD_1],
)
def test_an_invalid_field_is_named(known: dict[str, Any], field: str, value: object, named: str) -> None:
    raw = json.loads(json.dumps(known))
    *path, last = field.split(".")
    inner: Any = raw
    for part in path:
        inner = inner[int(part) if isinstance(inner, list) else part]
    inner[last] = value
    with pytest.raises(DatasetError, match=named):
        Manifest.from_json(raw, "gs://bkt/manifest.json")


@pytest.mark.parametrize(
    ("known", "field"),
    [(MANIFEST.to_json(), field) for field in sorted(MANIFEST.to_json())] + [(FORMAT_1, field) for field in FORMAT_1],
)
def test_a_missing_field_is_named(known: dict[str, Any], field: str) -> None:
    raw = {name: value for name, value in known.items() if name != field}
    with pytest.raises(DatasetError, match=rf"gs://bkt/manifest.json: {field}: is missing"):
        Manifest.from_json(raw, "gs://bkt/manifest.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", json.dumps("x").encode()])
def test_an_invalid_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(DatasetError, match=r"manifest\.json"):
        Manifest.from_bytes(data)


def _replaced(split: Split, **changes: Any) -> Split:
    return replace(split, files=(replace(split.files[0], **changes), *split.files[1:]))


def test_the_digest_depends_only_on_the_content() -> None:
    train, heldout = MANIFEST.train, MANIFEST.heldout
    compressed_otherwise = _replaced(train, size=7, sha256="9" * 64)
    same = [
        replace(MANIFEST, created="2030-01-01T00:00:00+00:00"),
        replace(MANIFEST, version="v2", license="other", source="other"),
        replace(MANIFEST, splits={"train": compressed_otherwise, "heldout": heldout}),
        replace(MANIFEST, splits={"train": replace(train, statistics={}), "heldout": heldout}),
    ]
    assert {manifest.digest for manifest in same} == {MANIFEST.digest}
    wider = (Column("image", "uint8", (784,)), Column("label", "uint8"))
    other = [
        replace(MANIFEST, splits={"train": _replaced(train, content_sha256="9" * 64), "heldout": heldout}),
        replace(MANIFEST, splits={"train": train, "heldout": replace(heldout, rows=11)}),
        replace(MANIFEST, splits={"train": heldout, "heldout": train}),
        replace(MANIFEST, schema=replace(MANIFEST.schema, columns=wider)),
        replace(MANIFEST, schema=replace(MANIFEST.schema, classes=(0, 1, 2))),
        replace(MANIFEST, splits={"train": train}),
    ]
    assert len({MANIFEST.digest, *(manifest.digest for manifest in other)}) == 1 + len(other)


def test_the_digest_of_a_table_depends_on_schema_task_and_checksums() -> None:
    moved = replace(TABLE, splits={"train": _replaced(TABLE.train, generation=9, uri="gs://other/1.parquet")})
    assert moved.digest == TABLE.digest
    other = [
        replace(TABLE, splits={"train": _replaced(TABLE.train, crc32c="AAAAAA==")}),
        replace(TABLE, schema=replace(TABLE.schema, target="age")),
        replace(TABLE, task="multiclass"),
    ]
    assert len({TABLE.digest, *(manifest.digest for manifest in other)}) == 1 + len(other)


def test_a_copy_and_a_reference_can_have_the_same_content() -> None:
    reference = TABLE.train
    copy = _replaced(reference, uri=None, generation=None, sha256="9" * 64)
    assert copy.identity != reference.identity
    assert copy.same_content(reference)
    assert not copy.same_content(_replaced(reference, crc32c="AAAAAA=="))
    assert not copy.same_content(_replaced(reference, path="train/2.parquet"))
    other = _replaced(copy, sha256="8" * 64)
    assert not copy.same_content(other), "two copies must be compared by SHA-256, which is stronger"


def test_diff_lists_only_content_and_statistics() -> None:
    grown = _replaced(replace(MANIFEST.train, rows=80), content_sha256="e" * 64)
    grown = replace(grown, statistics={"label": ColumnStatistics(nulls=0, top=((0, 60), (1, 20)))})
    newer = replace(MANIFEST, version="v2", created="2030-01-01T00:00:00+00:00")
    newer = replace(newer, splits={**MANIFEST.splits, "train": grown})
    assert [(one.field, one.old, one.new) for one in diff(MANIFEST, newer)] == [
        ("train.rows", "60", "80"),
        ("train.image", "b" * 12, "e" * 12),
        ("train.label 0", "59 (98.33 %)", "60 (75.00 %)"),
        ("train.label 1", "1 (1.67 %)", "20 (25.00 %)"),
    ]
    assert diff(MANIFEST, replace(MANIFEST, version="v3")) == []
    schema = replace(TABLE.schema, columns=(*TABLE.schema.columns, Column("new", "int8")), key=None)
    assert [(one.field, one.old, one.new) for one in diff(TABLE, replace(TABLE, schema=schema))] == [
        ("column new", "-", "int8"),
        ("key", "id", "-"),
    ]


@pytest.mark.parametrize("name", ["", "Mnist", "a/b", "..", "1st", "a" * 41, "ä"])
def test_names_that_are_invalid_as_folders_are_refused(name: str) -> None:
    with pytest.raises(DatasetError, match="invalid dataset name"):
        check_dataset_name(name)


@pytest.mark.parametrize("version", ["", ".", "..", "-1", "a/b", "a b", "2026-11-01T00:00", "v" * 64, "v1\n"])
def test_versions_that_are_invalid_as_folders_are_refused(version: str) -> None:
    with pytest.raises(DatasetError, match="invalid dataset version"):
        check_version_name(version)
