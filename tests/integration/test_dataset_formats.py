"""Tests versions of every format: registered by copy and by reference, read, verified, and fetched."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from mlengine import cli, datasets
from mlengine.cli.exit_codes import ExitCode
from mlengine.core.dataset import Column, Manifest
from mlengine.core.errors import DatasetError
from mlengine.core.layout import dataset_dir
from mlengine.datasets.formats import format_named, idx
from mlengine.datasets.sources import ObjectFile
from mlengine.storage.client import Storage
from tests.support import tables

pytestmark = pytest.mark.integration

TABLES = ("parquet", "csv", "csv.gz", "jsonl", "jsonl.gz", "tfrecord")


def add(storage: Storage, bucket: str, path: Path | str, version: str = "v1", **fields: Any) -> Manifest:
    given = {"license": "x", "source": "tests", "target": "left", "key": "id", **fields}
    return datasets.add(storage, bucket, "people", version, path, **given)


def upload(storage: Storage, folder: Path, prefix: str) -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            storage.upload(path, f"{prefix}/{path.relative_to(folder).as_posix()}")
    return prefix


def read(storage: Storage, bucket: str, manifest: Manifest, split: str, cache: Path) -> pa.Table:
    root = dataset_dir(bucket, manifest.name, manifest.version)
    reader = datasets.open_split(storage, manifest, root, split, cache)
    return pa.Table.from_batches(reader.batches(100))


@pytest.mark.parametrize("by_reference", [False, True])
@pytest.mark.parametrize("suffix", TABLES)
def test_a_table_is_read_back_unchanged(
    storage: Storage, bucket: str, tmp_path: Path, suffix: str, by_reference: bool
) -> None:
    folder = tables.version(tmp_path / "given", suffix)
    source: Path | str = upload(storage, folder, f"{bucket}/raw/people") if by_reference else folder
    manifest = add(storage, bucket, source)
    assert manifest.format == suffix.split(".", maxsplit=1)[0]
    assert (manifest.task, manifest.schema.classes) == ("binary", (0, 1))
    assert manifest.by_reference == by_reference
    assert datasets.load_manifest(storage, bucket, "people", "v1") == manifest
    assert datasets.verify(storage, bucket, "people", "v1") == []
    given = tables.people(300, 99, first=1_000)
    found = read(storage, bucket, manifest, "heldout", tmp_path / "cache")
    for name in ("id", "age", "city", "left"):
        assert found.column(name).to_pylist() == given.column(name).to_pylist()
    incomes = zip(found.column("income").to_pylist(), given.column("income").to_pylist(), strict=True)
    assert all(a == b or a == pytest.approx(b, rel=1e-6) for a, b in incomes)
    if not by_reference or suffix == "parquet":
        assert (manifest.train.rows, manifest.heldout.rows) == (1_000, 300)
    if not by_reference:
        assert manifest.train.statistics["city"].counts.keys() == {"Bern", "Lyon", "Oslo"}
        assert manifest.train.statistics["city"].nulls == tables.people(1_000, 1).column("city").null_count
    stored = [stat.uri for stat in storage.ls(dataset_dir(bucket, "people", "v1"))]
    assert any(uri.endswith("/train/part-0." + suffix) for uri in stored) != by_reference


def test_images_in_class_folders_are_registered(storage: Storage, bucket: str, tmp_path: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        for label in ("cat", "dog"):
            for number in range(count):
                path = tmp_path / "given" / split / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"\x89PNG\r\n\x1a\n" + f"{split}{label}{number}".encode())
    manifest = add(storage, bucket, tmp_path / "given", target=None, key=None)
    assert (manifest.format, manifest.task, manifest.schema.classes) == ("images", "binary", ("cat", "dog"))
    assert (manifest.schema.target, manifest.schema.key) == ("label", "path")
    rows = read(storage, bucket, manifest, "heldout", tmp_path / "cache").to_pylist()
    assert [(row["label"], row["path"]) for row in rows] == [
        ("cat", "heldout/cat/0.png"),
        ("cat", "heldout/cat/1.png"),
        ("dog", "heldout/dog/0.png"),
        ("dog", "heldout/dog/1.png"),
    ]
    assert rows[2]["image"] == b"\x89PNG\r\n\x1a\ntestdog0"
    # The same images, with each split in a separate place.
    heldout = str(tmp_path / "given" / "test")
    apart = add(storage, bucket, tmp_path / "given" / "train", "v2", target=None, key=None, heldout=heldout)
    assert apart.digest == manifest.digest
    with pytest.raises(DatasetError, match="no held-out rows") as refused:
        add(storage, bucket, tmp_path / "given" / "train", "v3", target=None, key=None)
    assert "0.1" not in refused.value.hint, "no share of pictures can be held out"
    (tmp_path / "given" / "train" / "cat" / "1.png").write_bytes(b"text")
    with pytest.raises(DatasetError, match=r"train/cat/1\.png is not a picture: it begins with 74 65 78 74"):
        add(storage, bucket, tmp_path / "given", "v4", target=None, key=None)


def test_opaque_files_are_registered_with_checksums_only(storage: Storage, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "sounds.bin").write_bytes(b"abc")
    manifest = add(storage, bucket, tmp_path / "given", target=None, key=None)
    assert (manifest.format, manifest.task, manifest.train.rows) == ("files", "none", None)
    root = dataset_dir(bucket, "people", "v1")
    with pytest.raises(DatasetError, match="have no rows that mlengine can read"):
        list(datasets.open_split(storage, manifest, root, "train", tmp_path / "cache").batches())
    assert (datasets.fetch(storage, root, tmp_path / "cache") / "train/sounds.bin").read_bytes() == b"abc"


def test_tensors_and_lists_in_tfrecord_examples_are_read(storage: Storage, bucket: str, tmp_path: Path) -> None:
    rows = [
        {"pixels": [float(n), 2.0, 3.0], "words": [b"\xff"] * (n % 3 + 1), "n": n - 5, "left": n % 2, "id": str(n)}
        for n in range(10)
    ]
    for split, part in (("train", rows[:6]), ("heldout", rows[6:])):
        (tmp_path / "given").mkdir(exist_ok=True)
        (tmp_path / "given" / f"{split}.tfrecord-00000-of-00001").write_bytes(tables.tfrecord(part))
    manifest = add(storage, bucket, tmp_path / "given", limits={"class-balance": 1})
    assert manifest.schema.column("pixels") == Column("pixels", "float32", (3,))
    assert manifest.schema.column("words") == Column("words", "binary", (-1,))
    assert read(storage, bucket, manifest, "heldout", tmp_path / "cache").to_pylist() == [
        {**row, "pixels": row["pixels"]} for row in rows[6:]
    ]


def test_tfrecord_examples_without_values_are_read_as_null(storage: Storage, bucket: str, tmp_path: Path) -> None:
    """An empty list counts as a missing value, for scalars and for lists of a fixed length."""
    rows: list[dict[str, Any]] = [
        {
            "pair": [1.0, n] if n % 2 else [],
            "one": [float(n)] if n % 3 or n % 2 == 0 else [],
            "left": n % 2,
            "id": str(n),
        }
        for n in range(1, 31)
    ]
    for split, part in (("train", rows[:20]), ("heldout", rows[20:])):
        (tmp_path / "given").mkdir(exist_ok=True)
        (tmp_path / "given" / f"{split}.tfrecord").write_bytes(tables.tfrecord(part))
    manifest = add(storage, bucket, tmp_path / "given", limits={"class-balance": 1})
    assert manifest.schema.column("pair") == Column("pair", "float32", (2,), nullable=True)
    assert manifest.schema.column("one") == Column("one", "float32", nullable=True)
    found = read(storage, bucket, manifest, "heldout", tmp_path / "cache").to_pylist()
    assert [row["pair"] for row in found] == [row["pair"] or None for row in rows[20:]]
    assert [row["one"] for row in found] == [row["one"][0] if row["one"] else None for row in rows[20:]]
    rows[300:] = [{**rows[0], "pair": [1.0, 2.0, 3.0], "id": "x"}]
    (tmp_path / "given" / "train.tfrecord").write_bytes(tables.tfrecord([*rows[:20]] * 13 + rows[-1:]))
    with pytest.raises(DatasetError, match="the feature 'pair' has 3 values in a row, 2 in the first rows"):
        add(storage, bucket, tmp_path / "given", "v2", limits={"class-balance": 1}, rows="all")


def test_a_replaced_object_is_detected_without_reading_it(storage: Storage, bucket: str, tmp_path: Path) -> None:
    prefix = upload(storage, tables.version(tmp_path / "given", "parquet"), f"{bucket}/raw/people")
    manifest = add(storage, bucket, prefix)
    uri = f"{prefix}/heldout/part-0.parquet"
    assert {file.uri for file in manifest.files} == {uri, f"{prefix}/train/part-0.parquet"}
    storage.write(uri, storage.read(uri))  # the same bytes with a new generation
    (problem,) = datasets.verify(storage, bucket, "people", "v1")
    assert (problem.uri, problem.reason[:26]) == (uri, "was replaced: generation 1")
    for use in (
        lambda: datasets.fetch(storage, dataset_dir(bucket, "people", "v1"), tmp_path / "cache"),
        lambda: read(storage, bucket, manifest, "heldout", tmp_path / "cache"),
    ):
        with pytest.raises(DatasetError, match=rf"{uri} was replaced: generation \d+, \d+ in the manifest"):
            use()
    assert read(storage, bucket, manifest, "train", tmp_path / "cache").num_rows == 1_000
    storage.delete(uri)
    assert [one.reason for one in datasets.verify(storage, bucket, "people", "v1")] == ["is missing"]


def test_an_object_replaced_while_it_is_read_is_an_error(storage: Storage, bucket: str, tmp_path: Path) -> None:
    uri = f"{bucket}/raw/a.bin"
    storage.write(uri, b"a" * 300_000)
    stat = storage.stat(uri)
    assert stat is not None
    with ObjectFile("a.bin", stat, storage).open() as stream:
        assert stream.read(10) == b"a" * 10
        storage.write(uri, b"b" * 300_000)
        with pytest.raises(DatasetError, match=r"a\.bin was replaced: generation \d+, \d+ recorded"):
            stream.read()


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "jsonl", "tfrecord"])
def test_an_object_that_differs_from_its_checksum_is_an_error(
    storage: Storage, bucket: str, tmp_path: Path, suffix: str
) -> None:
    """The reader's error is raised through pyarrow's own threads."""
    path = tables.write(tables.people(3_000), tmp_path / f"train.{suffix}")
    storage.upload(path, f"{bucket}/raw/{path.name}")
    stat = storage.stat(f"{bucket}/raw/{path.name}")
    assert stat is not None
    files = [ObjectFile(path.name, replace(stat, crc32c="AAAAAA=="), storage)]
    found = format_named(suffix.split(".", maxsplit=1)[0])
    with pytest.raises(DatasetError, match=rf"{path.name} has crc32c .*, AAAAAA== was expected"):
        for _ in found.batches(files, found.infer(files, {}), 1_000):
            pass


def test_idx_files_are_registered_by_reference(storage: Storage, bucket: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, rows in (("train", 200), ("t10k", 50)):
        images = random.integers(0, 256, (rows, 3, 4), np.uint8)
        labels = (np.arange(rows) % 3).astype(np.uint8)
        storage.write(f"{bucket}/raw/{split}-images-idx3-ubyte", idx.header_bytes(rows, (3, 4)) + images.tobytes())
        packed = gzip.compress(idx.header_bytes(rows) + labels.tobytes())
        storage.write(f"{bucket}/raw/{split}-labels-idx1-ubyte.gz", packed)
    manifest = add(storage, bucket, f"{bucket}/raw", target=None, key=None, rows="all")
    assert (manifest.format, manifest.task, manifest.schema.classes) == ("idx", "multiclass", (0, 1, 2))
    assert [file.column for file in manifest.train.files] == ["image", "label"]
    assert manifest.train.statistics["label"].counts == {0: 67, 1: 67, 2: 66}
    found = read(storage, bucket, manifest, "heldout", tmp_path / "cache")
    assert found.column("label").to_pylist() == labels.tolist()
    pixels = found.column("image").combine_chunks().to_numpy_ndarray()
    assert (pixels == images).all()


def test_an_object_with_gzip_content_encoding_is_read_completely(storage: Storage, bucket: str, tmp_path: Path) -> None:
    """If it were read in ranges, an object with ``Content-Encoding: gzip`` would be cut off at its compressed size."""
    for split, rows in (("train", 3_000), ("heldout", 2_000)):
        path = tables.write(tables.people(rows, rows, first=rows * 10), tmp_path / f"{split}.csv.gz")
        blob = storage.client.bucket(bucket.removeprefix("gs://")).blob(f"raw/{split}.csv")
        blob.content_encoding = "gzip"
        blob.upload_from_string(path.read_bytes(), content_type="text/csv")
    manifest = add(storage, bucket, f"{bucket}/raw", rows="all")
    assert (manifest.train.rows, manifest.heldout.rows) == (3_000, 2_000)
    assert read(storage, bucket, manifest, "train", tmp_path / "cache").num_rows == 3_000


def test_registration_by_reference_reads_only_footers(
    storage: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "given"
    for split, rows, seed in (("train", 60_000, 1), ("heldout", 20_000, 2)):
        tables.write(tables.people(rows, seed, first=seed * 100_000), folder / split / "part-0.parquet")
    prefix = upload(storage, folder, f"{bucket}/raw/people")
    counted: list[int] = []
    read_range = Storage.read_range

    def counting(self: Storage, *args: Any, **fields: Any) -> bytes:
        data = read_range(self, *args, **fields)
        counted.append(len(data))
        return data

    monkeypatch.setattr(Storage, "read_range", counting)
    manifest = add(storage, bucket, prefix, rows="none", classes=("0", "1"), task="binary")
    assert (manifest.train.rows, manifest.heldout.rows) == (60_000, 20_000)
    age = manifest.train.statistics["age"]
    assert (age.min, age.max, age.nulls) == (18, 79, 0)
    assert len(counted) <= 4
    assert sum(counted) <= 4 * (64 << 10)


def test_held_out_rows_can_come_from_another_prefix(storage: Storage, bucket: str, tmp_path: Path) -> None:
    for place, rows, seed in (("all/2026", 500, 1), ("later", 200, 2)):
        path = tables.write(tables.people(rows, seed, first=seed * 1_000), tmp_path / place / "part-0.parquet")
        storage.upload(path, f"{bucket}/{place}/part-0.parquet")
    manifest = add(storage, bucket, f"{bucket}/all", heldout=f"{bucket}/later", rows="all")
    assert [file.path for file in manifest.files] == ["train/2026/part-0.parquet", "heldout/part-0.parquet"]
    assert datasets.verify(storage, bucket, "people", "v1") == []
    copy = datasets.fetch(storage, dataset_dir(bucket, "people", "v1"), tmp_path / "cache")
    assert (copy / "heldout/part-0.parquet").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("suffix", ["jsonl", "tfrecord"])
def test_a_field_missing_in_the_first_rows_is_refused_without_a_dtype(
    storage: Storage, bucket: str, tmp_path: Path, suffix: str
) -> None:
    folder = tables.version(tmp_path / "given", suffix, train=120_000 if suffix == "jsonl" else 1_000)
    row = {**tables.people(1, 5, first=900_000).to_pylist()[0], "nose": 7}
    with (folder / "train" / f"part-0.{suffix}").open("ab") as file:
        file.write(json.dumps(row).encode() + b"\n" if suffix == "jsonl" else tables.tfrecord([row]))
    with pytest.raises(DatasetError, match=r"unexpected field|features that the first rows do not have: nose"):
        add(storage, bucket, folder)
    if suffix == "jsonl":
        manifest = add(storage, bucket, folder, dtypes={"nose": "int64"})
        assert manifest.train.statistics["nose"].nulls == 120_000


def _rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    parquet.write_table(change(parquet.read_table(path)), path)


def _without(column: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([column])


def _nulls(column: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(
        table.schema.get_field_index(column), column, pa.nulls(len(table), table.schema.field(column).type)
    )


def _values(column: str, values: Callable[[int], Any]) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(
        table.schema.get_field_index(column), column, pa.array([values(row) for row in range(len(table))])
    )


BAD: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "no target": (_without("left"), r"no column 'left' for --target; columns: id, age, .*\n.*name one of them"),
    "all null": (_nulls("left"), r"target 'left' is null in all rows of heldout"),
    "too many classes": (
        _values("left", lambda row: f"class {row}"),
        r"target 'left' has more than 10,000 different values in train\n.*name another column with --target",
    ),
    "not finite": (_values("left", lambda row: float("inf") if row == 3 else 0.5 * row), r"infinite in 1"),
    "one class": (_values("left", lambda row: 1), r"'left' has the same value in all rows: 1"),
    "integers": (_values("left", lambda row: row % 7), r"classes, or numbers\?\n.*--task multiclass"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_target_is_refused(storage: Storage, bucket: str, tmp_path: Path, what: str) -> None:
    change, message = BAD[what]
    folder = tables.version(tmp_path / "given", "parquet", train=20_001 if what == "too many classes" else 1_000)
    for split in ("train", "heldout"):
        _rewrite(folder / split / "part-0.parquet", change)
    with pytest.raises(DatasetError, match=message):
        add(storage, bucket, folder)
    assert storage.ls(f"{bucket}/") == []


def test_a_file_with_other_columns_is_refused(storage: Storage, bucket: str, tmp_path: Path) -> None:
    folder = tables.version(tmp_path / "given", "parquet")
    other = tables.people(10, 5, first=5_000)
    age = other.schema.get_field_index("age")
    tables.write(other.set_column(age, "age", other.column("age").cast(pa.float64())), folder / "train/part-1.parquet")
    with pytest.raises(DatasetError, match=r"part-1\.parquet has other columns .*'age' is double and int64 in the"):
        add(storage, bucket, folder)
    tables.write(other.drop_columns(["age"]), folder / "train/part-1.parquet")
    with pytest.raises(DatasetError, match=r"part-1\.parquet has other columns .*'age' is missing"):
        add(storage, bucket, folder)
    tables.write(other.select(["left", "age", "id", "city", "income"]), folder / "train/part-1.parquet")
    assert add(storage, bucket, folder).train.rows == 1_010, "the order of columns may differ"


def test_a_late_csv_row_with_too_many_fields_is_refused(storage: Storage, bucket: str, tmp_path: Path) -> None:
    folder = tables.version(tmp_path / "given", "csv", train=150_000)
    with (folder / "train/part-0.csv").open("a") as file:
        file.write('"p",1,2.5,"Bern",0,7\n')
    with pytest.raises(
        DatasetError, match=r"part-0\.csv: row 150,001 \(line 150,002\) has 6 fields, the header 5: .*'Bern', '0', '7'"
    ):
        add(storage, bucket, folder)


def test_a_late_csv_value_of_another_type_is_refused(storage: Storage, bucket: str, tmp_path: Path) -> None:
    folder = tables.version(tmp_path / "given", "csv", train=200_000)
    with (folder / "train/part-0.csv").open("a") as file:
        file.write('"p","unknown",2.5,"Bern",0\n')
    message = r"part-0\.csv, line 200,002: column 'age' has the value 'unknown', and its type is int64\n.*=string"
    with pytest.raises(DatasetError, match=message):
        add(storage, bucket, folder)
    assert add(storage, bucket, folder, dtypes={"age": "string"}).schema.column("age").dtype == "string"


def test_a_late_fraction_makes_a_csv_column_float64(storage: Storage, bucket: str, tmp_path: Path) -> None:
    folder = tables.version(tmp_path / "given", "csv", train=200_000)
    with (folder / "train/part-0.csv").open("a") as file:
        file.write('"p",33.5,2.5,"Bern",0\n')
    with pytest.raises(DatasetError, match=r"column 'age' has the value '33\.5', and its type is int64\n.*age=float64"):
        add(storage, bucket, folder, dtypes={"age": "int64"})
    shown: list[str] = []
    manifest = add(storage, bucket, folder, progress=shown.append)
    assert manifest.schema.column("age").dtype == "float64"
    assert manifest.train.statistics["age"].nulls == 0
    assert any("column 'age' is read as float64: " in text and "line 200,002" in text for text in shown)
    later = tables.version(tmp_path / "later", "csv", train=200_000, seed=5)
    assert add(storage, bucket, later, "v2").schema.column("age").dtype == "float64", "as in the version before"


def test_integers_and_fractions_in_two_splits_give_a_float_column(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    folder = tables.version(tmp_path / "given", "jsonl")
    path = folder / "heldout/part-0.jsonl"
    path.write_text(path.read_text().replace('"age": 3', '"age": 0.5'))
    assert add(storage, bucket, folder).schema.column("age").dtype == "float64"


DAMAGED: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "parquet": ("parquet", lambda data: data[:-30], "is not a readable Parquet file"),
    "csv.gz": ("csv.gz", lambda data: data[: len(data) // 2], "Truncated compressed stream"),
    "jsonl": ("jsonl", lambda data: data + b"{oops\n", r"part-0\.jsonl, line 1,001: .*oops"),
    "tfrecord": ("tfrecord", lambda data: data[:-30] + b"x" + data[-29:], "record 999: its checksum differs"),
    "truncated tfrecord": ("tfrecord", lambda data: data[:-30], "record 999: the file is cut short"),
    "empty file": ("parquet", lambda data: b"", r"part-0\.parquet \(split train\) is empty"),
    "header only": ("csv", lambda data: data.split(b"\n")[0] + b"\n", r"part-0\.csv has no rows, only a header line"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_refused(storage: Storage, bucket: str, tmp_path: Path, what: str) -> None:
    suffix, damage, message = DAMAGED[what]
    folder = tables.version(tmp_path / "given", suffix)
    path = folder / "train" / f"part-0.{suffix}"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=message):
        add(storage, bucket, folder)
    assert storage.ls(f"{bucket}/") == []


def test_the_next_version_is_compared_with_the_one_before(storage: Storage, bucket: str, tmp_path: Path) -> None:
    add(storage, bucket, tables.version(tmp_path / "v1", "parquet"))
    second = tables.version(tmp_path / "v2", "parquet", seed=5)
    inherited = {"license": None, "source": None, "target": None, "key": None}
    manifest = add(storage, bucket, second, "v2", **inherited)
    assert (manifest.license, manifest.schema.target, manifest.schema.key) == ("x", "left", "id")
    path = tables.version(tmp_path / "v3", "parquet", seed=6) / "train/part-0.parquet"
    _rewrite(path, _values("city", lambda row: "Rome" if row % 4 == 0 else "Bern"))
    _rewrite(path, _values("age", lambda row: 60 + row % 20))
    _rewrite(path, _values("income", lambda row: None if row % 3 else 1.5))
    with pytest.raises(DatasetError) as caught:
        add(storage, bucket, tmp_path / "v3", "v3", **inherited)
    for message in (
        r"categories: column 'city': 25.00 % of the rows have values that people/v2 does not have: 'Rome'",
        r"drift: column 'age': PSI ",
        r"nulls: column 'income': 66.60 % nulls, 0.00 % in people/v2",
    ):
        assert message in str(caught.value), message
    names = ["categories", "drift", "nulls"]
    manifest = add(storage, bucket, tmp_path / "v3", "v3", **inherited, allow=names, reason="moved to Rome")
    assert {exception.check for exception in manifest.exceptions} == set(names)
    few = tables.version(tmp_path / "v4", "parquet", train=100, seed=7)
    _rewrite(few / "train/part-0.parquet", _values("left", lambda row: row % 3))
    with pytest.raises(DatasetError) as caught:
        add(storage, bucket, few, "v4", **inherited)
    assert "row-count: 100 training rows, 1,000 in people/v3: 10 %" in str(caught.value)
    assert "classes: target 'left' of train has values that are no class: 2 in 33 rows" in str(caught.value)


def test_held_out_rows_can_be_fixed_rolling_or_a_share(storage: Storage, bucket: str, tmp_path: Path) -> None:
    add(storage, bucket, tables.version(tmp_path / "v1", "parquet"))
    other = tables.version(tmp_path / "v2", "parquet")
    tables.write(tables.people(300, 7, first=9_000), other / "heldout/part-0.parquet")
    with pytest.raises(DatasetError, match=r"held-out-set.*--heldout-policy rolling"):
        add(storage, bucket, other, "v2")
    assert add(storage, bucket, other, "v2", heldout_policy="rolling").heldout_policy == "rolling"
    alone = tables.write(tables.people(2_000, 3), tmp_path / "people.csv")
    with pytest.raises(DatasetError, match=r"has no held-out rows.*\n.*--heldout 0\.1"):
        datasets.add(storage, bucket, "alone", "v1", alone, license="x", source="x", target="left")
    manifest = datasets.add(
        storage, bucket, "alone", "v1", alone, license="x", source="x", target="left", key="id", heldout="0.1"
    )
    assert (manifest.format, manifest.heldout_policy) == ("parquet", "rolling")
    assert manifest.heldout.rows is not None
    assert 150 < manifest.heldout.rows < 250
    assert manifest.train.rows == 2_000 - manifest.heldout.rows
    elsewhere = datasets.add(
        storage,
        bucket,
        "apart",
        "v1",
        alone,
        license="x",
        source="x",
        target="left",
        heldout=str(tables.write(tables.people(200, 4), tmp_path / "later.csv")),
    )
    assert elsewhere.heldout.rows == 200


def test_the_next_version_has_the_same_share_by_the_same_key(storage: Storage, bucket: str, tmp_path: Path) -> None:
    """The user repeats neither share nor key. A customer's rows must stay in the same split."""
    first = tables.write(tables.people(2_000, 3), tmp_path / "first.csv")
    terms: dict[str, Any] = {"license": "x", "source": "x", "target": "left", "key": "id"}
    before = datasets.add(storage, bucket, "alone", "v1", first, heldout="0.1", **terms)
    grown = tables.write(tables.people(2_500, 4), tmp_path / "grown.csv")  # the same ids and more, with other values
    after = datasets.add(storage, bucket, "alone", "v2", grown)
    assert (before.heldout_share, after.heldout_share, after.heldout_policy) == (0.1, 0.1, "rolling")
    again = datasets.load_manifest(storage, bucket, "alone", "v2")
    assert again.heldout_share == 0.1
    keys = {
        (version, split): set(_column(storage, f"{bucket}/datasets/alone/{version}/{split}/part-0.parquet", "id"))
        for version in ("v1", "v2")
        for split in ("train", "heldout")
    }
    assert keys["v1", "heldout"] <= keys["v2", "heldout"]
    assert keys["v1", "train"] <= keys["v2", "train"]
    apart = tables.write(tables.people(200, 4, first=9_000), tmp_path / "apart.csv")
    elsewhere = datasets.add(storage, bucket, "alone", "v3", grown, heldout=str(apart))
    assert (elsewhere.heldout_share, elsewhere.heldout.rows) == (None, 200)


@pytest.mark.parametrize("heldout", ["0.1", "apart"])
def test_a_field_that_first_occurs_late_is_refused(storage: Storage, bucket: str, tmp_path: Path, heldout: str) -> None:
    """Columns are determined from the first 8 MiB; a field that first appears later must not be lost."""
    pad, path = "x" * 1000, tmp_path / "rows.jsonl"
    lines = [json.dumps({"id": row, "pad": pad, "left": row % 2}) for row in range(9_000)]
    path.write_text("\n".join([*lines, json.dumps({"id": 9_000, "pad": pad, "left": 1, "extra": 7})]) + "\n")
    apart = tmp_path / "apart.jsonl"
    apart.write_text("\n".join(lines[:100]) + "\n")
    with pytest.raises(DatasetError, match=r"extra|unexpected field"):
        datasets.add(
            storage,
            bucket,
            "late",
            "v1",
            path,
            license="x",
            source="x",
            target="left",
            task="binary",
            heldout=str(apart) if heldout == "apart" else heldout,
        )
    assert storage.ls(f"{bucket}/datasets/late/") == []


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(("true", "false"), (True, False)), (("False", "True"), (False, True)), (None, (False, True))],
)
def test_truth_values_have_the_order_of_the_given_classes(
    storage: Storage,
    bucket: str,
    tmp_path: Path,
    classes: tuple[str, ...] | None,
    expected: tuple[bool, ...],
) -> None:
    """The second class is the positive one."""
    path = tmp_path / "rows.csv"
    path.write_text("id,left\n" + "".join(f"{row},{'true' if row % 3 else 'false'}\n" for row in range(6_000)))
    terms: dict[str, Any] = {"license": "x", "source": "x", "target": "left", "heldout": "0.2"}
    manifest = datasets.add(storage, bucket, "truth", "v1", path, classes=classes, **terms)
    assert manifest.schema.classes == expected
    with pytest.raises(DatasetError, match="'yes' is neither true nor false"):
        datasets.add(storage, bucket, "other", "v1", path, classes=("yes", "no"), **terms)


@pytest.mark.parametrize(("role", "message"), [("key", "--target, --key"), ("weight", "--target, --weight")])
def test_a_column_has_one_role(storage: Storage, bucket: str, tmp_path: Path, role: str, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,left\n" + "".join(f"{row},{row % 2 + 1}\n" for row in range(600)))
    roles: dict[str, Any] = {"target": "left", role: "left"}
    with pytest.raises(DatasetError, match=f"the column 'left' is given as {message}"):
        datasets.add(storage, bucket, "one", "v1", path, license="x", source="x", heldout="0.2", task="binary", **roles)


def _column(storage: Storage, uri: str, name: str) -> list[Any]:
    values: list[Any] = parquet.read_table(io.BytesIO(storage.read(uri)))[name].to_pylist()
    return values


def test_training_rows_newer_than_the_held_out_rows_are_refused(storage: Storage, bucket: str, tmp_path: Path) -> None:
    folder = tables.version(tmp_path / "v1", "csv")
    for split, day in (("train", 10), ("heldout", 20)):
        path = folder / split / "part-0.csv"
        lines = path.read_text().splitlines()
        dated = [f"{line},2026-11-{day + number % 10:02}" for number, line in enumerate(lines[1:])]
        path.write_text("\n".join([f'{lines[0]},"at"', *dated]) + "\n")
    assert add(storage, bucket, folder, time="at").schema.time == "at"
    path = folder / "train/part-0.csv"
    path.write_text(path.read_text().replace("2026-11-11", "2026-11-21"))
    with pytest.raises(DatasetError, match=r"time-order: 100 training rows \(10\.00 %\) are newer .* \(2026-11-20"):
        add(storage, bucket, folder, "v2", time="at", heldout_policy="rolling")


def short(candidate: Any) -> str | None:
    rows = sum(len(batch) for batch in candidate.batches("train"))
    return f"{rows} rows" if rows < 2_000 else None


def test_custom_checks_are_run(storage: Storage, bucket: str, tmp_path: Path) -> None:
    folder = tables.version(tmp_path / "v1", "parquet")
    with pytest.raises(DatasetError, match="  - short: 1000 rows"):
        add(storage, bucket, folder, own_checks=[short])
    with pytest.raises(DatasetError, match="  - short: 1000 rows"):
        add(storage, bucket, folder, own_checks=[f"{__name__}:short"])
    with pytest.raises(DatasetError, match="ZeroDivisionError"):
        add(storage, bucket, folder, own_checks=[lambda candidate: 1 // 0])
    with pytest.raises(DatasetError, match="has no attribute 'nothing'"):
        add(storage, bucket, folder, own_checks=[f"{__name__}:nothing"])
    manifest = add(storage, bucket, folder, own_checks=[short], allow=["short"], reason="the first")
    assert [check.name for check in manifest.checks if not check.passed] == ["short"]


def test_the_command_line(storage: Storage, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        code = cli.main(["datasets", *arguments, "--bucket", bucket])
        out, err = capsys.readouterr()
        return code, out + err

    first, second = tables.version(tmp_path / "v1", "csv"), tables.version(tmp_path / "v2", "csv", seed=3)
    roles = ("--target", "left", "--key", "id", "--task", "binary", "--classes", "0,1", "--dtype", "age=float64")
    code, text = run("add", "people", "v1", str(first), *roles, "--license", "x", "--source", "tests")
    assert code == 0, text
    assert "registered people/v1: csv, 1,000 training rows, 300 held-out rows" in text
    code, text = run("add", "people", "v2", str(second), "--dtype", "age=float64", "--json")
    assert code == 0, text
    assert json.loads(text)["manifest"]["schema"]["target"] == "left"
    code, text = run("show", "people", "v1")
    assert code == 0
    assert "task:       binary (target left, key id)\nheld out:   fixed\n" in text
    assert "train: 1,000 rows, 1 file," in text
    assert json.loads(run("show", "people", "--json")[1])["version"] == "v2"
    code, text = run("diff", "people", "v1", "v2", "--rows", "--json")
    assert code == ExitCode.DIFFERENT
    assert json.loads(text)["rows"] == {
        "kept": 1000,
        "added": 0,
        "removed": 0,
        "relabelled": 513,
        "changed": 1000,
    }, "rows are compared by their key"
    assert [one["ok"] for one in json.loads(run("verify", "people", "--json")[1])] == [True, True]
    code, text = run("fetch", "people", "v1", "--to", str(tmp_path / "cache"), "--json")
    assert (Path(json.loads(text)["directory"]) / "heldout/part-0.csv").is_file()
    for words, message in (
        (("add", "people", "v3"), "pass either a path or --from-croissant"),
        (("add", "people", "v3", str(first), "--limit", "drift=x"), "--limit drift=x: not a number"),
        (("add", "people", "v3", str(first), "--limit", "luck=1"), "no check has the limit 'luck'"),
        (("add", "people", "v3", str(first), "--limit", "drift=nan"), "the limit drift is nan"),
        (("add", "people", "v3", str(first), "--announce", "--airflow-url", "no URL"), "no URL"),
        (("add", "people", "v3", str(first), "--dtype", "age"), "expected --dtype COLUMN=TYPE, got 'age'"),
        (("add", "people", "v3", str(first), "--dtype", "nose=int8"), "the column 'nose', which does not exist"),
        (("add", "people", "v3", str(first), "--key", "nose"), "no column 'nose' for --key; columns: id, age"),
        (("add", "people", "v3", str(first), "--classes", "0,x"), "--classes: invalid literal"),
    ):
        code, text = run(*words)
        assert (code in (ExitCode.FAILED, ExitCode.USAGE), message in text) == (True, True), text
    assert json.loads(run("list", "--json")[1]) == [{"name": "people", "versions": ["v1", "v2"]}]
