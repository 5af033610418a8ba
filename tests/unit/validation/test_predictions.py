"""Predictions as a Parquet file, and those of version 0.1."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mlengine.core.errors import MlengineError
from mlengine.validation.predictions import Predictions

TARGET = np.array([0, 1, 1])


@pytest.mark.parametrize(
    ("task", "values", "predicted"),
    [
        ("binary", np.array([0.1, 0.7, np.nan]), None),
        ("multiclass", np.array([[0.1, 0.9], [0.7, 0.3], [np.nan, np.nan]]), np.array([1, 0, -1])),
        ("multiclass", None, np.array([1, 0, -1])),
        ("regression", np.array([250_000.0, -3.5, 0.0]), None),
        ("none", np.ones((3, 4)), None),
    ],
)
def test_predictions_are_read_back_unchanged(task: str, values: Any, predicted: Any) -> None:
    made = Predictions(
        task,
        "abc",
        ("no", "yes"),
        target=TARGET,
        values=values,
        predicted=predicted,
        weight=np.array([1.0, 2.0, 0.5]),
        key=np.array(["a", "b", "c"], object),
        slices={"carrier": np.array(["UA", None, "AA"], object)},
    )
    read = Predictions.from_bytes(made.to_bytes())
    assert (read.task, read.heldout, read.classes) == (task, "abc", ("no", "yes"))
    for name in ("target", "values", "predicted", "weight"):
        before, after = getattr(made, name), getattr(read, name)
        assert (before is None) == (after is None)
        if before is not None:
            assert np.array_equal(before, after, equal_nan=True)
    assert read.key is not None
    assert read.key.tolist() == ["a", "b", "c"]
    assert read.slices["carrier"].tolist() == ["UA", None, "AA"]
    assert made.same_rows(read)


def test_predictions_are_ordinary_parquet_files() -> None:
    made = Predictions("binary", "abc", ("no", "yes"), target=TARGET, values=np.array([0.1, 0.7, 0.2]))
    table = pq.read_table(io.BytesIO(made.to_bytes()))
    assert table.to_pydict() == {"row": [0, 1, 2], "target": [0, 1, 1], "probability": [0.1, 0.7, 0.2]}


def test_predictions_of_version_0_1_can_be_compared_with_new_ones() -> None:
    pack = {"labels": TARGET.astype("<u2"), "classes": np.array([0, 65535, 1], "<u2")}
    data = {name: base64.b64encode(values.tobytes()).decode() for name, values in pack.items()}
    old = Predictions.from_json(json.dumps({"format": 1, "heldout": "abc", **data}).encode())
    assert old.predicted is not None
    assert old.predicted.tolist() == [0, -1, 1]
    new = Predictions("multiclass", "abc", (0, 1), target=TARGET, predicted=TARGET)
    assert old.same_rows(new)
    assert not old.same_rows(Predictions("multiclass", "def", (0, 1), target=TARGET, predicted=TARGET))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"{}"])
def test_invalid_predictions_are_refused(data: bytes) -> None:
    with pytest.raises(MlengineError, match="not predictions"):
        Predictions.from_bytes(data)
    with pytest.raises(MlengineError, match="not predictions"):
        Predictions.from_json(data)
