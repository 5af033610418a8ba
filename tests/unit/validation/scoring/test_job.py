"""What a run of the scoring process says about a model that fails."""

from __future__ import annotations

import json
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeRegressor

from mlengine.validation.scoring import predictors
from mlengine.validation.scoring.job import FAILED, UNFIT, ScoringJob

ROWS = 20_000


@pytest.mark.parametrize(
    ("model", "value", "shown"), [(LinearRegression(), -np.inf, "-inf"), (DecisionTreeRegressor(), 1e300, "1e+300")]
)
def test_an_infinite_value_is_named_with_its_column_and_row(
    tmp_path: Path, model: LinearRegression | DecisionTreeRegressor, value: float, shown: str
) -> None:
    train = pd.DataFrame({"a": [0.0, 1.0], "b": [1.0, 3.0]})
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model.fit(train, [0.0, 1.0])))
    columns = {name: np.ones(ROWS) for name in ("a", "b")}
    columns["a"][19_000] = np.inf
    columns["b"][18_000:] = value
    for name, values in columns.items():
        values.tofile(tmp_path / name)
    described = [{"name": name, "kind": "array", "data": name, "dtype": "<f8", "shape": []} for name in columns]
    (tmp_path / "columns.json").write_text(json.dumps({"rows": ROWS, "columns": described}))
    options: dict[str, Any] = {
        "kind": "sklearn",
        "path": str(tmp_path / "model.pkl"),
        "columns": {},
        "output": None,
        "classes": None,
    }
    config = {"out": tmp_path, "rows": tmp_path, "model": options, "baseline": None, "batch": None, "only": None}
    written = threading.Event()
    written.set()
    assert ScoringJob(config, written).run() == FAILED
    message = json.loads((tmp_path / "model.json").read_text())["error"]["message"]
    assert "Input X contains infinity or a value too large" in message
    assert f"column 'b' is {shown} in held-out row 18000;" in message


@pytest.mark.parametrize(
    ("baseline", "without_keras"), [(None, True), ("savedmodel", True), ("keras", False), ("scorer", False)]
)
def test_keras_is_imported_only_if_a_model_may_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, baseline: str | None, without_keras: bool
) -> None:
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")  # so that it is restored
    monkeypatch.delenv("TF_USE_LEGACY_KERAS")
    monkeypatch.setitem(predictors.FRAMEWORKS, "savedmodel", "no_such_framework")
    models: dict[str, Any] = {"model": {"kind": "savedmodel"}, "baseline": {"kind": baseline} if baseline else None}
    assert ScoringJob({"out": tmp_path, **models}, threading.Event()).run() == UNFIT
    assert ("TF_USE_LEGACY_KERAS" in os.environ) == without_keras
