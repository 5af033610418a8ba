"""Tests columns whose types or values do not fit their roles, and how registered versions are shown and compared."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlengine import cli, datasets
from mlengine.cli.exit_codes import ExitCode
from mlengine.core.dataset import Manifest
from mlengine.core.errors import DatasetError
from mlengine.core.layout import dataset_dir
from mlengine.storage.client import Storage

pytestmark = pytest.mark.integration

ROWS = 60
LABELS = [row % 2 for row in range(ROWS)]


def add(storage: Storage, bucket: str, source: Path, version: str = "v1", **more: Any) -> Manifest:
    terms = {"license": "CC0", "source": "tests", "limits": {"duplicates": 1.0, "class-balance": 1.0}}
    return datasets.add(storage, bucket, "d", version, source, **{**terms, **more})


def texts(folder: Path, suffix: str, train: str, heldout: str | None = None) -> Path:
    for split, text in (("train", train), ("heldout", train if heldout is None else heldout)):
        (folder / split).mkdir(parents=True)
        (folder / split / f"part.{suffix}").write_text(text)
    return folder


def parquet(folder: Path, **columns: Any) -> Path:
    """Write the same rows to both splits."""
    for split in ("train", "heldout"):
        (folder / split).mkdir(parents=True)
        pq.write_table(pa.table(columns), folder / split / "part.parquet")
    return folder


def table(name: str, values: list[Any], target: list[Any] | None = None) -> str:
    pairs = zip(values, target or LABELS * (len(values) // ROWS + 1), strict=False)
    return f"{name},y\n" + "".join(f"{value},{label}\n" for value, label in pairs)


LONG = [10**24 + row for row in range(ROWS)]


@pytest.mark.parametrize("heldout", [None, "0.5"])
@pytest.mark.parametrize("values", [LONG, [f"{row}.10" for row in range(ROWS)]])
def test_a_key_is_not_rounded(
    storage: Storage, bucket: str, tmp_path: Path, values: list[Any], heldout: str | None
) -> None:
    folder = texts(tmp_path / "data", "csv", table("id", values))
    options: dict[str, Any] = {"target": "y", "key": "id"}
    source = folder
    if heldout is not None:
        source, options["heldout"] = folder / "train" / "part.csv", heldout
    with pytest.raises(DatasetError, match="column 'id' for --key has numbers that would be read as float64") as caught:
        add(storage, bucket, source, **options)
    assert caught.value.hint == "read it as a string: --dtype id=string"
    manifest = add(storage, bucket, source, dtypes={"id": "string"}, **options)
    assert sum(split.statistics["id"].distinct or 0 for split in manifest.splits.values()) == ROWS * (2 - bool(heldout))


def test_a_decimal_key_requires_dtype_string(storage: Storage, bucket: str, tmp_path: Path) -> None:
    source = parquet(tmp_path / "data", id=pa.array(map(Decimal, LONG), pa.decimal128(30, 0)), y=LABELS)
    with pytest.raises(DatasetError, match="--dtype id=string"):
        add(storage, bucket, source, target="y", key="id")
    manifest = add(storage, bucket, source, target="y", key="id", dtypes={"id": "string"})
    assert manifest.train.statistics["id"].counts[str(LONG[3])] == 1


def test_a_long_integer_key_in_json_is_refused(storage: Storage, bucket: str, tmp_path: Path) -> None:
    lines = "".join(f'{{"id": {value}, "y": {value % 2}}}\n' for value in LONG)
    with pytest.raises(DatasetError, match='write its values as strings: "id": "…"'):
        add(storage, bucket, texts(tmp_path / "data", "jsonl", lines), target="y", key="id")


def test_a_key_with_a_fraction_late_in_the_file(storage: Storage, bucket: str, tmp_path: Path) -> None:
    values = [*range(600_000), "0.5"]
    with pytest.raises(DatasetError, match=r"line 600,002: column 'id' has the value '0\.5'") as caught:
        add(storage, bucket, texts(tmp_path / "data", "csv", table("id", values)), target="y", key="id")
    assert str(caught.value.hint).endswith("read the keys as strings: --dtype id=string")


def test_a_float_key_in_parquet_is_accepted(storage: Storage, bucket: str, tmp_path: Path) -> None:
    source = parquet(tmp_path / "data", id=[float(row) for row in range(ROWS)], y=LABELS)
    assert add(storage, bucket, source, target="y", key="id").schema.key == "id"


NO_TARGETS: dict[str, tuple[list[Any], str]] = {
    "lists": ([[row, 1] for row in range(ROWS)], r"'c' is int64\[\?\]: it has several values"),
    "bytes": ([b"%d" % (row % 2) for row in range(ROWS)], r"'c' is binary; .*\n.*--dtype c=string"),
    "times": ([pa.scalar(row, pa.timestamp("us")) for row in range(ROWS)], "'c' is timestamp; targets are numbers"),
}


@pytest.mark.parametrize("task", [None, "multiclass", "regression"])
@pytest.mark.parametrize("kind", NO_TARGETS)
def test_a_target_type_without_a_task_is_refused(
    storage: Storage, bucket: str, tmp_path: Path, kind: str, task: str | None
) -> None:
    values, message = NO_TARGETS[kind]
    source = parquet(tmp_path / "data", x=list(range(ROWS)), c=pa.array(values))
    with pytest.raises(DatasetError, match=f"the target {message}"):
        add(storage, bucket, source, target="c", task=task)
    assert add(storage, bucket, source, target="c", task="none").task == "none"


@pytest.mark.parametrize(
    ("role", "values", "message"),
    [
        ("time", [[row] for row in range(ROWS)], r"'c' for --time is int64\[\?\]: it has several values"),
        ("weight", [[row] for row in range(ROWS)], r"'c' for --weight is int64\[\?\]; weights are numbers"),
        ("weight", [str(row) for row in range(ROWS)], r"'c' for --weight is string; .*\n.*--dtype c=float64"),
    ],
)
def test_a_column_whose_type_does_not_fit_its_role_is_refused(
    storage: Storage, bucket: str, tmp_path: Path, role: str, values: list[Any], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        add(storage, bucket, parquet(tmp_path / "data", y=LABELS, c=values), target="y", **{role: "c"})


@pytest.mark.parametrize("heldout", [["1.5", "1.5"], ["1.5", "2.5"]])
def test_few_distinct_held_out_values_do_not_make_a_classification(
    storage: Storage, bucket: str, tmp_path: Path, heldout: list[str]
) -> None:
    """The training rows have more distinct values than are counted."""
    train = table("x", list(range(20_000)), [f"{row}.5" for row in range(20_000)])
    source = texts(tmp_path / "data", "csv", train, table("x", [1, 2], heldout))
    manifest = add(storage, bucket, source, target="y")
    assert (manifest.task, manifest.schema.classes) == ("regression", None)


def test_a_target_with_a_class_per_row_is_refused(storage: Storage, bucket: str, tmp_path: Path) -> None:
    names = [f"customer {row}" for row in range(ROWS)]
    source = parquet(tmp_path / "data", x=list(range(ROWS)), c=names)
    with pytest.raises(DatasetError, match="target 'c' has 60 classes in 60 training rows: each row has its own class"):
        add(storage, bucket, source, target="c")
    assert add(storage, bucket, source, target="c", classes=tuple(names)).task == "multiclass"


def test_a_held_out_share_with_a_time_column_is_refused(storage: Storage, bucket: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(table("at", [f"2026-01-01 00:{row:02}:00" for row in range(ROWS)]))
    with pytest.raises(
        DatasetError, match="by their hash, not by their time: give the newest rows with --heldout PATH"
    ):
        add(storage, bucket, path, target="y", time="at", heldout="0.3")


@pytest.mark.parametrize("option", ["--target", "--key", "--time", "--weight", "--heldout"])
def test_a_repeated_option_for_one_column_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["datasets", "add", "d", "v1", "data", option, "a", option, "b"])
    assert caught.value.code == ExitCode.USAGE
    assert f"argument {option}: given twice, with a and b; use it only once" in capsys.readouterr().err


def test_line_breaks_in_column_names_and_values_are_escaped(
    storage: Storage, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shown values include infinite ones."""
    columns = {
        "a\nb": [float("inf") if row in (3, 7) else float(row) for row in range(ROWS)],
        "text": [f"x\ny{row % 2}" for row in range(ROWS)],
        "class": [f"c\r\n{row % 2}" for row in range(ROWS)],
    }
    manifest = add(storage, bucket, parquet(tmp_path / "data", **columns), target="class")
    assert manifest.train.statistics["a\nb"].infinite == 2
    assert datasets.load_manifest(storage, bucket, "d", "v1") == manifest
    assert cli.main(["datasets", "show", "d", "--bucket", bucket]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "classes:    2: c\\x0a0, c\\x0a1" in lines
    assert any(line.startswith("  a\\x0ab  float64        2 infinite; 0 to 59;") for line in lines)
    assert any(line.startswith("  text    string         2 distinct; most frequent x\\x0ay0 (30)") for line in lines)
    assert all(line.startswith(" ") or ":" in line or not line for line in lines)


def test_rows_are_compared_by_their_key(
    storage: Storage, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str, rows: range, changed: set[int], relabelled: set[int]) -> Manifest:
        lines = [f"k{row},{row + 100 * (row in changed)},{(row + (row in relabelled)) % 2}\n" for row in rows]
        source = texts(tmp_path / name, "csv", "id,x,y\n" + "".join(lines), "id,x,y\na,1,0\nb,1,1\n")
        options: dict[str, Any] = {"target": "y", "key": "id", "allow": ["drift"], "reason": "a test"}
        return add(storage, bucket, source, name, **options)

    old, new = version("v1", range(ROWS), set(), set()), version("v2", range(1, ROWS + 2), {3, 4, 5}, {5, 6})
    readers = [
        datasets.open_split(storage, one, dataset_dir(bucket, "d", one.version), "train", tmp_path / "cache")
        for one in (old, new)
    ]
    assert datasets.diff_rows(*readers) == datasets.RowDiff(59, 2, 1, 2, 3)
    assert cli.main(["datasets", "diff", "d", "v1", "v2", "--rows", "--bucket", bucket]) == ExitCode.DIFFERENT
    shown = "training rows: 59 kept, 2 added, 1 removed, 2 relabelled, 3 with other features"
    assert shown in capsys.readouterr().out


def test_versions_of_different_formats_columns_and_keys_are_compared(
    storage: Storage, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def difference(new: str) -> tuple[str, str]:
        assert cli.main(["datasets", "diff", "d", "v1", new, "--rows", "--bucket", bucket]) == ExitCode.DIFFERENT
        captured = capsys.readouterr()
        return captured.out, captured.err

    lines = [f"{row},{row},{row % 2}\n" for row in range(ROWS)]
    allowed = {"allow": ["schema", "row-count"], "reason": "a test", "heldout_policy": "rolling"}
    add(storage, bucket, texts(tmp_path / "1", "csv", "id,x,y\n" + "".join(lines)), target="y", key="id")
    numbers: dict[str, Any] = {"y": [row % 2 for row in range(ROWS)], "x": range(ROWS), "id": range(ROWS)}
    required = pa.schema([pa.field("y", pa.int64()), pa.field("x", pa.int64(), nullable=False), ("id", pa.int64())])
    for split in ("train", "heldout"):
        (tmp_path / "2" / split).mkdir(parents=True)
        pq.write_table(pa.table(numbers, schema=required), tmp_path / "2" / split / "part.parquet")
    add(storage, bucket, tmp_path / "2", "v2", target="y", key="id", **allowed)
    out, err = difference("v2")
    assert re.search(r"^format +csv -> parquet$", out, re.M)
    assert re.search(r"^column x +int64, nullable -> int64$", out, re.M)
    assert f"training rows: {ROWS} kept, 0 added, 0 removed, 0 relabelled, 0 with other features" in out
    assert err == ""
    add(storage, bucket, tmp_path / "2", "v3", target="y", key="x", **allowed)
    out, _ = difference("v3")
    assert re.search(r"^key +id -> x$", out, re.M)
    source = parquet(tmp_path / "4", id=range(ROWS), x=[float(row) for row in range(ROWS)], y=numbers["y"])
    add(storage, bucket, source, "v4", target="y", key="id", **allowed)
    out, err = difference("v4")
    assert re.search(r"^column x +int64, nullable -> float64, nullable$", out, re.M)
    assert "training rows" not in out
    assert err == "rows are not compared: the versions have different columns: x\n"


def pictures(folder: Path, classes: str, first: int = 0) -> Path:
    for number, name in enumerate(classes.split()):
        for row in range(4):
            path = folder / name / f"{row}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\xff\xd8\xff" + bytes([first, number, row]))
    return folder


@pytest.mark.parametrize("name", ["val", "test", "train"])
def test_an_image_class_can_have_the_name_of_a_split(storage: Storage, bucket: str, tmp_path: Path, name: str) -> None:
    train, heldout = pictures(tmp_path / "a", f"cat {name}"), pictures(tmp_path / "b", f"cat {name}", 1)
    manifest = add(storage, bucket, train, heldout=str(heldout))
    assert manifest.schema.classes == tuple(sorted(("cat", name)))
    assert (manifest.train.rows, manifest.heldout.rows) == (8, 8)
    assert f"train/{name}/0.jpg" in [file.path for file in manifest.train.files]
    reader = datasets.open_split(storage, manifest, dataset_dir(bucket, "d", "v1"), "heldout", tmp_path / "cache")
    labels = [label for batch in reader.batches(columns=["label"]) for label in batch.column(0).to_pylist()]
    assert sorted(labels) == sorted(["cat"] * 4 + [name] * 4)


def test_a_folder_that_could_be_a_class_or_a_split_is_refused(storage: Storage, bucket: str, tmp_path: Path) -> None:
    train, heldout = pictures(tmp_path / "a", "cat dog val"), pictures(tmp_path / "b", "cat dog", 1)
    with pytest.raises(
        DatasetError, match=r"the folder 'val' may be a class or a split: only one of .*a and .*b has it"
    ):
        add(storage, bucket, train, heldout=str(heldout))


@pytest.mark.parametrize("share", [None, "0.5"])
def test_the_next_version_has_the_types_of_the_previous_one(
    storage: Storage, bucket: str, tmp_path: Path, share: str | None
) -> None:
    """Types that were set, and that of a column of strings which only has digits this time."""
    limits = {"categories": 1.0, "drift": 100.0, "duplicates": 1.0, "class-balance": 1.0}

    def source(name: str, text: str) -> Path:
        if share is None:
            return texts(tmp_path / name, "csv", text)
        (tmp_path / name).mkdir()
        (tmp_path / name / "people.csv").write_text(text)
        return tmp_path / name

    def dtypes(manifest: Manifest) -> list[str]:
        return [column.dtype for column in manifest.schema.columns]

    text = "zip,code,x,y\n" + "".join(f"{row % 9:05},A{row % 9},{row},{row % 2}\n" for row in range(ROWS))
    set_types = {"zip": "string", "x": "int32"}
    first = add(storage, bucket, source("1", text), target="y", dtypes=set_types, heldout=share)
    assert dtypes(first) == ["string", "string", "int32", "int64"]
    digits = text.replace(",A", ",")
    second = add(storage, bucket, source("2", digits), "v2", heldout_policy="rolling", limits=limits)
    assert second.schema == first.schema
    fractions = source("3", digits.replace(",1,1\n", ",1.5,1\n"))
    with pytest.raises(DatasetError, match="'x' is float64, was int32"):
        add(storage, bucket, fractions, "v3", limits=limits)
    options = {"limits": limits, "dtypes": {"zip": "int64"}, "allow": ["schema"], "reason": "tests"}
    assert dtypes(add(storage, bucket, fractions, "v3", **options)) == ["int64", "string", "float64", "int64"]
