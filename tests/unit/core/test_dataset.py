"""The manifest: what it refuses, what its digest depends on, what a diff tells."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from mlengine.core.dataset import (
    CheckException,
    DataFile,
    Manifest,
    Split,
    check_dataset_name,
    check_version_name,
    diff,
)
from mlengine.core.errors import DatasetError


def _split(prefix: str, rows: int) -> Split:
    return Split(
        rows=rows,
        images=DataFile(f"{prefix}-images-idx3-ubyte.gz", 100, "a" * 64, "b" * 64),
        labels=DataFile(f"{prefix}-labels-idx1-ubyte.gz", 10, "c" * 64, "d" * 64),
        label_counts=(rows - 1, 1),
    )


MANIFEST = Manifest(
    name="mnist",
    version="2026-11-01",
    created="2026-11-01T02:03:04+00:00",
    license="CC BY-SA 3.0",
    source="LeCun, Cortes, Burges",
    train=_split("train", 60),
    heldout=_split("heldout", 10),
    shape=(28, 28),
    classes=2,
)


def test_round_trip() -> None:
    assert Manifest.from_bytes(MANIFEST.to_bytes()) == MANIFEST


def test_exceptions_are_kept_and_are_no_part_of_the_content() -> None:
    exception = CheckException("duplicates", "225 of 10000 held-out images are among them.", "few values")
    manifest = replace(MANIFEST, exceptions=(exception,))
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert manifest.digest == MANIFEST.digest
    assert "exceptions" not in MANIFEST.to_json()


@pytest.mark.parametrize(
    "value", ["x", {}, ["x"], [{"check": "duplicates"}], [{"check": "", "found": "", "reason": ""}]]
)
def test_exceptions_that_are_none_are_refused(value: Any) -> None:
    with pytest.raises(DatasetError, match="exceptions"):
        Manifest.from_json({**MANIFEST.to_json(), "exceptions": value})


def test_a_reader_leaves_unknown_fields_alone_and_does_without_optional_ones() -> None:
    raw = MANIFEST.to_json()
    raw["later"] = {"x": 1}
    for split in raw["splits"].values():
        del split["label_counts"]
        del split["images"]["content_sha256"]
    manifest = Manifest.from_json(raw)
    assert manifest.train.label_counts == ()
    assert manifest.train.images.identity == "a" * 64


BAD: list[tuple[str, Any, str]] = [
    ("format", 2, "format"),
    ("name", "../x", "dataset name"),
    ("version", "a/b", "dataset version"),
    ("version", "", "version"),
    ("created", "yesterday", "created"),
    ("file_format", "parquet", "file_format"),
    ("license", " ", "license"),
    ("source", None, "source"),
    ("shape", [], "shape"),
    ("shape", [28, 0], r"shape\[1\]"),
    ("dtype", 8, "dtype"),
    ("classes", True, "classes"),
    ("splits", [], "splits is not an object"),
    ("splits.train", None, "splits.train is not an object"),
    ("splits.train.rows", 0, r"splits.train: rows"),
    ("splits.train.rows", "60", "rows"),
    ("splits.train.label_counts", [1, 1], "label_counts"),
    ("splits.train.label_counts", [60], "label_counts"),
    ("splits.heldout.images.path", "/etc/passwd", "path"),
    ("splits.heldout.images.path", "../../x", "path"),
    ("splits.heldout.images.path", "train-images-idx3-ubyte.gz", "same path"),
    ("splits.heldout.images.size", -1, "size"),
    ("splits.heldout.labels.sha256", "A" * 64, "sha256"),
    ("splits.heldout.labels.content_sha256", "short", "content_sha256"),
]


@pytest.mark.parametrize(("field", "value", "named"), BAD)
def test_a_wrong_field_is_named(field: str, value: object, named: str) -> None:
    raw = deepcopy(MANIFEST.to_json())
    *path, last = field.split(".")
    inner = raw
    for part in path:
        inner = inner[part]
    inner[last] = value
    with pytest.raises(DatasetError, match=named):
        Manifest.from_json(raw, "gs://bkt/manifest.json")


@pytest.mark.parametrize("field", sorted(MANIFEST.to_json()))
def test_a_missing_field_is_named(field: str) -> None:
    raw = MANIFEST.to_json()
    del raw[field]
    with pytest.raises(DatasetError, match=rf"gs://bkt/manifest.json: {field}: is missing"):
        Manifest.from_json(raw, "gs://bkt/manifest.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", json.dumps("x").encode()])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(DatasetError, match=r"manifest\.json"):
        Manifest.from_bytes(data)


def test_the_digest_is_of_the_content_alone() -> None:
    train = MANIFEST.train
    packed_otherwise = replace(train, images=replace(train.images, size=7, sha256="9" * 64))
    same = [
        replace(MANIFEST, created="2030-01-01T00:00:00+00:00"),
        replace(MANIFEST, version="v2", license="other", source="other"),
        replace(MANIFEST, train=packed_otherwise),
    ]
    assert {manifest.digest for manifest in same} == {MANIFEST.digest}
    other = [
        replace(MANIFEST, train=replace(train, images=replace(train.images, content_sha256="9" * 64))),
        replace(MANIFEST, heldout=replace(MANIFEST.heldout, rows=11)),
        replace(MANIFEST, shape=(784,)),
        replace(MANIFEST, classes=3),
        replace(MANIFEST, train=MANIFEST.heldout, heldout=MANIFEST.train),
    ]
    assert len({MANIFEST.digest, *(manifest.digest for manifest in other)}) == 1 + len(other)


def test_diff_tells_content_and_balance_and_nothing_else() -> None:
    grown = replace(MANIFEST.train, rows=80, label_counts=(60, 20))
    grown = replace(grown, images=replace(grown.images, content_sha256="e" * 64))
    newer = replace(MANIFEST, version="v2", created="2030-01-01T00:00:00+00:00", train=grown)
    assert [(one.field, one.old, one.new) for one in diff(MANIFEST, newer)] == [
        ("train.rows", "60", "80"),
        ("train.images", "b" * 12, "e" * 12),
        ("train.label 0", "59 (98.33 %)", "60 (75.00 %)"),
        ("train.label 1", "1 (1.67 %)", "20 (25.00 %)"),
    ]
    assert diff(MANIFEST, replace(MANIFEST, version="v3")) == []


@pytest.mark.parametrize("name", ["", "Mnist", "a/b", "..", "1st", "a" * 41, "ä"])
def test_names_that_are_no_folder_are_refused(name: str) -> None:
    with pytest.raises(DatasetError, match="invalid dataset name"):
        check_dataset_name(name)


@pytest.mark.parametrize("version", ["", ".", "..", "-1", "a/b", "a b", "2026-11-01T00:00", "v" * 64, "v1\n"])
def test_versions_that_are_no_folder_are_refused(version: str) -> None:
    with pytest.raises(DatasetError, match="invalid dataset version"):
        check_version_name(version)
