"""The held-out rows of a split: columns that are written for the scoring process, and columns that are not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from mlengine.core.dataset import Column, Schema
from mlengine.core.errors import DatasetError
from mlengine.datasets.reading import SplitReader
from mlengine.validation.heldout import Heldout, _batch_rows, check_schema, read_column, read_rows, write_heldout

SCHEMA = Schema(
    (Column("id", "int64"), Column("x", "float32"), Column("t", "string"), Column("late", "string")),
    target="late",
    key="id",
    classes=("no", "yes"),
)


@dataclass
class Split:
    """A table that acts as a split."""

    table: pa.Table
    rows: int | None = None

    def batches(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[Any]:
        assert columns is None, "all columns must be read in one pass"
        yield from self.table.to_batches(min(rows, 3))


def table(late: Sequence[Any]) -> pa.Table:
    count = len(late)
    return pa.table(
        {
            "id": pa.array(range(count)),
            "x": pa.array([at / 2 for at in range(count)], pa.float32()),
            "t": [f"t{at}" for at in range(count)],
            "late": pa.array(late, pa.string()),
        }
    )


def write(split: Split, folder: Path) -> Heldout:
    return write_heldout(cast("SplitReader", split), SCHEMA, "binary", folder, digest="d")


def test_target_and_key_are_not_passed_to_the_model(tmp_path: Path) -> None:
    heldout = write(Split(table(["no", "yes"] * 4), 8), tmp_path)
    assert heldout.rows == 8
    assert dict(heldout.columns) == {"x": ("float32", ()), "t": ("string", ())}
    assert heldout.target is not None
    assert heldout.target.tolist() == [0, 1] * 4
    assert heldout.key is not None
    assert heldout.key.tolist() == list(range(8))
    assert read_rows(heldout, [7, 0]) == [{"x": 3.5, "t": "t7"}, {"x": 0.0, "t": "t0"}]
    assert read_rows(heldout, [1], ["t"]) == [{"t": "t1"}]
    assert read_rows(heldout, []) == []
    assert np.array_equal(read_column(heldout, "x"), np.arange(8) / 2)
    with pytest.raises(DatasetError, match="no column 'late'"):
        read_column(heldout, "late")


def test_rows_without_a_known_count_are_read_once(tmp_path: Path) -> None:
    assert write(Split(table(["no", "yes", "no", "yes"])), tmp_path).rows == 4


@pytest.mark.parametrize(
    ("late", "rows", "message"),
    [
        ([], 0, "the held-out set has no rows"),
        (["no", "yes"], 3, "the held-out set has 2 rows, and its manifest says 3"),
        (["no", None], 2, "rows without a value in the target column 'late'"),
        (["no", "no", "no", "maybe"], 4, "the target 'maybe', which is none of the 2 classes"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, late: list[Any], rows: int, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        write(Split(table(late), rows), tmp_path)


COLUMNS = (Column("x", "float32"), Column("v", "float32", (3,)), Column("t", "string"))


@pytest.mark.parametrize(
    ("target", "classes", "task", "slices", "message"),
    [
        (
            "t",
            ("a", "b"),
            "regression",
            (),
            "needs a target with one number a row, and the target 't' is string with 2",
        ),
        ("v", None, "regression", (), "the target 'v' is float32"),
        ("x", None, "multiclass", (), "needs a target with classes, and the target 'x' is float32 with no classes"),
        ("t", ("a", "b", "c"), "binary", (), "needs a target with two classes, and the target 't' is string with 3"),
        ("x", None, "regression", ("v",), "the column 'v' of a slice is a tensor of shape"),
        ("x", None, "regression", ("w",), "no column 'w'"),
        ("x", None, "regression", ("x",), "no column 'x'"),
    ],
)
def test_a_dataset_that_does_not_fit_the_validation_is_refused(
    target: str, classes: tuple[str, ...] | None, task: str, slices: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)):
        check_schema(Schema(COLUMNS, target=target, classes=classes), task, slices)


def test_a_dataset_that_fits_is_accepted() -> None:
    check_schema(Schema(COLUMNS, target="t", classes=("a", "b")), "binary", ("x",))
    check_schema(Schema(COLUMNS, target="t", classes=("a", "b")), "multiclass")
    check_schema(Schema(COLUMNS, target="x", classes=(0.0, 1.0)), "regression", ("t",))
    check_schema(Schema(COLUMNS, target="v"), "none", ("x", "t"))
    check_schema(Schema(COLUMNS), "none")


def test_a_batch_has_a_bounded_size() -> None:
    large = Schema((Column("image", "float32", (512, 512, 3)),))
    assert _batch_rows(large) == 10
    assert _batch_rows(Schema((Column("x", "float64", (4096, 4096)),))) == 1
    assert _batch_rows(Schema((Column("x", "bool"), Column("t", "timestamp")))) == 32_768


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("w", np.inf, "the weight inf in row 2, column 'w'; weights are finite and not negative"),
        ("w", None, "the weight nan in row 2"),
        ("w", -1.0, "the weight -1 in row 2"),
        ("price", np.nan, "the target nan in row 2, column 'price'"),
        ("price", -np.inf, "the target -inf in row 2"),
    ],
)
def test_weights_and_targets_of_which_no_metric_exists_are_refused(
    tmp_path: Path, column: str, value: float | None, message: str
) -> None:
    """A version by reference was registered with a sample of its rows."""
    schema = Schema((Column("price", "float64"), Column("w", "float64")), target="price", weight="w")
    good: dict[str, list[float | None]] = {"price": [1.0, 2.0, 3.0, 4.0], "w": [0.0, 1.0, 1.0, 1.0]}
    split = cast("SplitReader", Split(pa.table(good), 4))
    (tmp_path / "good").mkdir()
    assert write_heldout(split, schema, "regression", tmp_path / "good", digest="d").rows == 4
    good[column][2] = value
    split = cast("SplitReader", Split(pa.table(good), 4))
    with pytest.raises(DatasetError, match=message):
        write_heldout(split, schema, "regression", tmp_path, digest="d")
