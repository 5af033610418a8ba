"""Tests columns of every kind found in files: they are registered as they are, or refused with the column's name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlengine import datasets
from mlengine.core.dataset import Manifest
from mlengine.core.errors import DatasetError
from mlengine.datasets import scan as scanning
from mlengine.storage.client import Storage

pytestmark = pytest.mark.integration

ROWS = 400
X = np.arange(2 * ROWS)


def write(folder: Path, columns: Mapping[str, Any]) -> Path:
    """Write Parquet files for both splits: the first half of each column, and the second half."""
    table = pa.table(columns)
    for split, part in (("train", table.slice(0, ROWS)), ("heldout", table.slice(ROWS))):
        (folder / split).mkdir(parents=True)
        pq.write_table(part, folder / split / "part.parquet")
    return folder


def csv(folder: Path, train: str, heldout: str | None = None) -> Path:
    for split, text in (("train", train), ("heldout", train if heldout is None else heldout)):
        (folder / split).mkdir(parents=True)
        (folder / split / "part.csv").write_text(text)
    return folder


def add(storage: Storage, bucket: str, source: Path | str, version: str = "v1", **more: Any) -> Manifest:
    terms = {"license": "CC0", "source": "tests", "limits": {"duplicates": 1.0, "time-order": 1.0}}
    return datasets.add(storage, bucket, "d", version, source, **{**terms, **more})


CYCLE = X % 256
LISTS: dict[str, pa.Array] = {
    "int8": pa.array(CYCLE - 128, pa.int8()),
    "int16": pa.array(CYCLE - 30_000, pa.int16()),
    "uint64": pa.array([2**63 + int(value) for value in CYCLE], pa.uint64()),
    "list of strings": pa.array([[f"a{value}", f"b{value}"] for value in X], pa.list_(pa.string(), 2)),
    "list of strings with nulls": pa.array([[f"a{value}", None] for value in X], pa.list_(pa.string(), 2)),
    "list of booleans": pa.array([[value % 2 == 0, None] for value in X], pa.list_(pa.bool_(), 2)),
    "list of integers with nulls": pa.array([[int(value), None] for value in X], pa.list_(pa.int64(), 2)),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_column_is_registered(storage: Storage, bucket: str, tmp_path: Path, kind: str) -> None:
    manifest = add(storage, bucket, write(tmp_path / "data", {"x": X, "c": LISTS[kind]}))
    assert datasets.load_manifest(storage, bucket, "d", "v1") == manifest
    assert datasets.verify(storage, bucket, "d", "v1") == []


def test_the_range_of_small_integers_is_exact(storage: Storage, bucket: str, tmp_path: Path) -> None:
    manifest = add(storage, bucket, write(tmp_path / "data", {"x": X, "c": LISTS["int8"]}))
    found = manifest.train.statistics["c"]
    assert (found.min, found.max, found.distinct) == (-128, 127, 256)
    assert sum(rows for _, rows in found.top) <= ROWS


LINES = "".join(f"{row},{row % 7}\n" for row in range(300))
BAD: dict[str, tuple[str, str]] = {
    "no name": (f",y\n{LINES}", "column 1 has no name"),
    "the same name": (f"x,x\n{LINES}", "several columns are named 'x'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_header_with_an_empty_or_duplicate_name_is_refused(
    storage: Storage, bucket: str, tmp_path: Path, case: str
) -> None:
    """A manifest with an empty column name could not be read, not even to compare the next version with it."""
    text, message = BAD[case]
    with pytest.raises(DatasetError, match=rf"part\.csv: {message}"):
        add(storage, bucket, csv(tmp_path / "data", text))
    assert storage.ls(f"{bucket}/") == []


def test_duplicate_column_names_in_parquet_are_refused(storage: Storage, bucket: str, tmp_path: Path) -> None:
    for split in ("train", "heldout"):
        (tmp_path / split).mkdir()
        pq.write_table(pa.table([X, X], names=["x", "x"]), tmp_path / split / "part.parquet")
    with pytest.raises(DatasetError, match=r"part\.parquet: several columns are named 'x'"):
        add(storage, bucket, tmp_path)


def test_line_breaks_in_values_are_read_in_small_and_large_files(storage: Storage, bucket: str, tmp_path: Path) -> None:
    long = "word " * 20
    text = "x,text\n" + "".join(f'{row},"{long}\n{long}{row}"\n' for row in range(50_000))
    assert len(text) > 2 * (4 << 20), "the file must have several blocks"
    manifest = add(storage, bucket, csv(tmp_path / "data", text, 'x,text\n-1,"a\nb"\n'))
    assert manifest.train.rows == 50_000


@pytest.mark.parametrize("kind", ["integers", "dates"])
def test_the_time_order_check_accepts_integers_and_dates(
    storage: Storage, bucket: str, tmp_path: Path, kind: str
) -> None:
    times = X + 2000 if kind == "integers" else [datetime.fromordinal(738_000 + int(value)) for value in X]
    data = write(tmp_path / "data", {"x": X, "t": pa.array(times)})
    manifest = add(storage, bucket, data, time="t", limits={"duplicates": 1.0})
    (check,) = [check for check in manifest.checks if check.name == "time-order"]
    assert check.passed
    assert "0 training rows (0.00 %) are newer" in check.message


def test_a_text_column_for_time_is_refused(storage: Storage, bucket: str, tmp_path: Path) -> None:
    text = "x,day\n" + "".join(f"{row},{1 + row % 28:02}.12.2025\n" for row in range(300))
    with pytest.raises(DatasetError, match="the column 'day' for --time has text") as caught:
        add(storage, bucket, csv(tmp_path / "data", text), time="day")
    assert "--dtype day=timestamp" in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "message"), [(np.where(X == 7, -1.0, 1.0), "from -1 to 1"), (np.zeros(len(X)), "from 0 to 0")]
)
def test_negative_or_all_zero_weights_are_refused(
    storage: Storage, bucket: str, tmp_path: Path, weights: Any, message: str
) -> None:
    with pytest.raises(DatasetError, match=f"weight 'w' of train is {message}"):
        add(storage, bucket, write(tmp_path / "data", {"x": X, "w": weights}), weight="w")


def test_an_infinite_weight_is_refused(storage: Storage, bucket: str, tmp_path: Path) -> None:
    weights = np.where(X == 7, np.inf, 1.0)
    with pytest.raises(DatasetError, match=r"weight 'w' is null in 0 of .* rows of train, infinite in 1"):
        add(storage, bucket, write(tmp_path / "data", {"x": X, "w": weights}), weight="w")


def test_checks_of_a_sample_use_shares_of_the_sampled_rows(
    storage: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shares are relative to the rows that were read, not to all rows."""
    monkeypatch.setattr(scanning, "SAMPLE_BYTES", 4_000)

    def version(name: str, nulls: int, cities: str) -> str:
        for split in ("train", "heldout"):
            table = pa.table(
                {
                    "x": pa.array([None if row % 100 < nulls else float(row % 50) for row in range(50_000)]),
                    "city": pa.array([cities[row % len(cities)] for row in range(50_000)]),
                }
            )
            path = tmp_path / f"{name}-{split}.parquet"
            pq.write_table(table, path, row_group_size=1_000)
            storage.upload(path, f"{bucket}/raw/{name}/{split}/part.parquet")
        return f"{bucket}/raw/{name}"

    first = add(storage, bucket, version("a", 0, "AB"))
    assert first.train.rows == 50_000
    assert first.train.read is not None
    assert first.train.read < 50_000
    assert datasets.load_manifest(storage, bucket, "d", "v1") == first
    with pytest.raises(DatasetError) as caught:
        add(storage, bucket, version("b", 50, "ABZZ"), "v2", heldout_policy="rolling")
    for words in ("column 'x': 50.00 % nulls, 0.00 %", "50.00 % of the rows have values", "column 'city': PSI"):
        assert words in str(caught.value)


@pytest.mark.parametrize("rows", [200, 500])
def test_noise_in_a_small_version_is_not_reported_as_drift(
    storage: Storage, bucket: str, tmp_path: Path, rows: int
) -> None:
    """Both versions draw 72 ages from the same distribution."""
    random = np.random.default_rng(1)

    def ages(shift: int = 0) -> str:
        return "age\n" + "".join(f"{age + shift}\n" for age in random.integers(18, 90, rows))

    add(storage, bucket, csv(tmp_path / "v1", ages()))
    add(storage, bucket, csv(tmp_path / "v2", ages()), "v2", heldout_policy="rolling")
    with pytest.raises(DatasetError, match="column 'age': PSI"):
        add(storage, bucket, csv(tmp_path / "v3", ages(30)), "v3")
