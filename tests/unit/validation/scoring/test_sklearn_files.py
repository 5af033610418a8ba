"""Files of scikit-learn: their content, and the data frame that the estimator gets."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlengine.validation.scoring.predictors.sklearn import SklearnModel

OPTIONS: dict[str, Any] = {"columns": {}}
COLUMNS = {"town": ("string", ()), "age": ("int64", ())}


class Recorder:
    """An estimator that records the data frames that it gets."""

    feature_names_in_ = np.array(["town", "age"])

    def __init__(self) -> None:
        self.frames: list[pd.DataFrame] = []

    def predict(self, frame: pd.DataFrame) -> Any:
        self.frames.append(frame)
        return np.zeros(len(frame))


def stored(folder: Path, model: Any) -> str:
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    return str(folder / "model.pkl")


def test_text_has_the_same_type_in_each_batch(tmp_path: Path) -> None:
    model = SklearnModel(stored(tmp_path, Recorder()), OPTIONS, COLUMNS)
    for towns in (["Bern", None], [None]):
        model.predict({"town": np.array(towns, object), "age": np.arange(len(towns))})
    both, missing = (frame["town"] for frame in model.model.frames)
    assert both.dtype == missing.dtype == pd.Series(["text"]).dtype
    assert repr(both[1]) == repr(missing[0])


def test_an_object_that_cannot_predict_is_refused_with_advice(tmp_path: Path) -> None:
    path = stored(tmp_path, {"model": 1, "threshold": 0.4})
    with pytest.raises(ValueError, match=r"an object of type dict, which has no predict\(\): store the estimator"):
        SklearnModel(path, OPTIONS, COLUMNS)


def test_a_class_of_the_main_module_is_refused_with_advice(tmp_path: Path) -> None:
    code = "import pickle, sys\nclass Clip: pass\npickle.dump(Clip(), open(sys.argv[1], 'wb'))"
    subprocess.run([sys.executable, "-c", code, tmp_path / "model.pkl"], check=True)
    with pytest.raises(ValueError, match="the model needs Clip, which is defined in the module that the trainer runs"):
        SklearnModel(str(tmp_path / "model.pkl"), OPTIONS, COLUMNS)
