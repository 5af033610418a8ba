"""The kind of a model, determined by the names of its files."""

from __future__ import annotations

import pytest

from mlengine.core.errors import ModelError
from mlengine.validation.model_kind import ModelKind, find_kind


@pytest.mark.parametrize(
    ("files", "kind", "path"),
    [
        (["saved_model.pb", "variables/variables.index"], "savedmodel", ""),
        (["3/saved_model.pb", "3/assets/model.txt"], "savedmodel", "3"),
        (["model.keras", "metrics.json"], "keras", "model.keras"),
        (["model.json"], "xgboost", "model.json"),
        (["model.ubj", "features.json"], "xgboost", "model.ubj"),
        (["model.txt"], "lightgbm", "model.txt"),
        (["pipeline.joblib"], "sklearn", "pipeline.joblib"),
        (["net.pt2"], "torch", "net.pt2"),
        (["net.onnx", "net.onnx.data"], "onnx", "net.onnx"),
        (["._net.onnx", "net.onnx"], "onnx", "net.onnx"),
        ([".ipynb_checkpoints/m-checkpoint.joblib", "m.joblib"], "sklearn", "m.joblib"),
        (["saved_model.pb", "assets/inner/saved_model.pb"], "savedmodel", ""),
    ],
)
def test_the_kind_of_a_model_is_recognised(files: list[str], kind: str, path: str) -> None:
    assert find_kind(files) == ModelKind(kind, path)


def test_other_files_are_an_unknown_kind() -> None:
    assert find_kind(["weights.bin", "config.json"]) is None


def test_two_models_are_ambiguous() -> None:
    with pytest.raises(ModelError, match=r"2 models: a\.onnx, b\.keras") as raised:
        find_kind(["b.keras", "a.onnx"])
    assert raised.value.hint is not None
    assert "scorer=" in raised.value.hint


def test_two_saved_models_are_ambiguous() -> None:
    with pytest.raises(ModelError, match="2 SavedModels: 1, 2"):
        find_kind(["1/saved_model.pb", "2/saved_model.pb"])
