"""The loader of dataset versions: valid input, and errors that name the file and the reason."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import datasets
from trainer.errors import DatasetError
from trainer.files.dataset import Split, batches, open_dataset


@pytest.fixture
def version(digits: Path, tmp_path: Path) -> Path:
    return datasets.make(tmp_path / "version", digits, train=200, heldout=50)


def _edit(version: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((version / "manifest.json").read_text())
    change(manifest)
    (version / "manifest.json").write_text(json.dumps(manifest))


def _put(version: Path, kind: str, content: bytes) -> None:
    """Replace a file of the train split, and update the manifest to match."""
    data = gzip.compress(content, mtime=0)
    name = f"train-{kind}-idx{3 if kind == 'images' else 1}-ubyte.gz"
    (version / name).write_bytes(data)
    entry = {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    _edit(version, lambda manifest: manifest["splits"]["train"].update({kind: entry}))


def test_the_content_of_the_files_is_loaded(version: Path) -> None:
    dataset = open_dataset(str(version))
    train, heldout = dataset.load("train"), dataset.load("heldout")
    assert train.images.shape == (200, 784)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert heldout.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert dataset.version == "version"


def _format_2(manifest: dict[str, Any]) -> None:
    columns = [{"name": "image", "dtype": "uint8", "shape": manifest.pop("shape")}]
    columns.append({"name": "label", "dtype": "uint8"})
    classes = list(range(manifest.pop("classes")))
    manifest.update(format=2, schema={"columns": columns, "target": "label", "classes": classes})
    for split in manifest["splits"].values():
        split["files"] = [{**split.pop(f"{name}s"), "column": name} for name in ("image", "label")]


def test_format_2_of_the_manifest_is_read(version: Path) -> None:
    before = open_dataset(str(version)).load("heldout")
    _edit(version, _format_2)
    after = open_dataset(str(version)).load("heldout")
    assert (after.images == before.images).all()
    assert (after.labels == before.labels).all()
    _edit(version, lambda manifest: manifest["splits"]["train"]["files"].pop())
    with pytest.raises(DatasetError, match="labels lack path, size or sha256"):
        open_dataset(str(version)).load("train")


def test_a_version_without_a_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"manifest.json: not there, so this is no \(complete\) dataset version"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}'])
def test_an_invalid_manifest_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DatasetError, match=r"manifest\.json: not"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": None}, "splits is missing or null; it must be an object"),
        ({"shape": 28}, "shape is 28; it must be a list"),
        ({"classes": None}, "classes is missing or null; it must be an integer"),
        ({"splits": {"train": None}}, "has no split 'train'"),
        ({"splits": {"train": {"images": [1]}}}, "images lack path, size or sha256"),
    ],
)
def test_an_incomplete_manifest_of_format_1_is_an_error(version: Path, change: dict[str, Any], message: str) -> None:
    _edit(version, lambda manifest: manifest.update(change))
    with pytest.raises(DatasetError, match=rf"manifest\.json: {message}"):
        open_dataset(str(version)).load("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": None}, "schema.columns is missing or null; it must be a list"),
        ({"schema": {"classes": []}}, "schema.columns is missing or null; it must be a list"),
        ({"schema": {"columns": [1], "classes": []}}, "schema.columns must be a list of objects"),
        ({"schema": {"columns": [{}], "classes": None}}, "schema.classes is missing or null; it must be a list"),
        ({"schema": {"columns": [{}], "classes": []}}, r"images of \[\], 0 classes"),
        ({"schema": {"columns": [{"name": "image", "shape": 7}], "classes": []}}, r"images of \[\], 0 classes"),
        ({"splits": {"train": {"files": [1]}}}, "images lack path, size or sha256"),
        ({"splits": {"train": {"files": None}}}, "images lack path, size or sha256"),
    ],
)
def test_an_incomplete_manifest_of_format_2_is_an_error(version: Path, change: dict[str, Any], message: str) -> None:
    _edit(version, _format_2)
    _edit(version, lambda manifest: manifest.update(change))
    with pytest.raises(DatasetError, match=rf"manifest\.json: {message}"):
        open_dataset(str(version)).load("train")


def test_a_truncated_file_is_an_error(version: Path) -> None:
    path = version / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"train-labels-idx1-ubyte.gz: has \d+ bytes, \d+ in its manifest"):
        open_dataset(str(version)).load("train")


def test_different_row_counts_are_an_error(version: Path) -> None:
    _edit(version, lambda manifest: manifest["splits"]["train"].update(rows=201))
    with pytest.raises(DatasetError, match="200 images, 200 labels; its manifest says 201"):
        open_dataset(str(version)).load("train")


def test_labels_in_place_of_images_are_an_error(version: Path) -> None:
    _put(version, "images", struct.pack(">2I", 2049, 200) + bytes(200))
    with pytest.raises(DatasetError, match=r"train-images.*not an IDX file of images: it begins with 00000801"):
        open_dataset(str(version)).load("train")


def test_images_of_another_size_are_an_error(version: Path) -> None:
    _put(version, "images", struct.pack(">4I", 2051, 200, 8, 8) + bytes(200 * 64))
    with pytest.raises(DatasetError, match=r"train-images.*its images are \(8, 8\), expected \(28, 28\)"):
        open_dataset(str(version)).load("train")


def test_fewer_pixels_than_in_the_header_are_an_error(version: Path) -> None:
    _put(version, "images", struct.pack(">4I", 2051, 200, 28, 28) + bytes(77))
    with pytest.raises(DatasetError, match=r"train-images.*holds 77 values"):
        open_dataset(str(version)).load("train")


def test_a_label_out_of_range_is_an_error(version: Path) -> None:
    _put(version, "labels", struct.pack(">2I", 2049, 200) + bytes([11] * 200))
    with pytest.raises(DatasetError, match=r"train-labels.*a label is 11, with 10 classes"):
        open_dataset(str(version)).load("train")


def test_batches_cover_all_examples_before_any_repeats() -> None:
    split = Split(np.arange(12, dtype=np.uint8)[:, None], np.arange(12, dtype=np.uint8))
    seen = [labels.tolist() for _, labels in islice(batches(split, 4, 7), 6)]
    assert sorted(chain(*seen[:3])) == sorted(chain(*seen[3:])) == list(range(12))
    assert seen[:3] != seen[3:]
    assert seen == [labels.tolist() for _, labels in islice(batches(split, 4, 7), 6)]
    assert seen != [labels.tolist() for _, labels in islice(batches(split, 4, 8), 6)]


def test_shards_are_disjoint_and_complete() -> None:
    split = Split(np.zeros((10, 1), np.uint8), np.arange(10, dtype=np.uint8))
    shards = [split.shard(index, 3).labels.tolist() for index in range(3)]
    assert sorted(chain(*shards)) == list(range(10))


def test_a_sample_is_spread_over_all_examples_and_reproducible() -> None:
    labels = np.arange(100, dtype=np.uint8)
    split = Split(labels[:, None], labels)
    assert split.sample(4).labels.tolist() == [0, 25, 50, 75]
    assert split.sample(3).labels.tolist() == split.sample(3).labels.tolist() == [0, 33, 66]
    assert split.sample(100) is split.sample(1000) is split


def test_batches_of_a_split_are_all_its_examples_in_order() -> None:
    labels = np.arange(10, dtype=np.uint8)
    assert [batch.labels.tolist() for batch in Split(labels[:, None], labels).batches(4)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
