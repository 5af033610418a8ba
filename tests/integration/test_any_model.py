"""Validates the formats in which frameworks save a model on a small table; tests/support/any_models_*.py create them.

The manual's recipes and wrong scorers are tested in test_own_model.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlengine.core.layout import JobDir
from mlengine.core.verdict import Decision
from mlengine.storage.client import Storage
from mlengine.validation.predictions import load_predictions
from mlengine.validation.serving_signature import ServingSignature
from tests.support import own_models
from tests.support.own_models import RULES, OwnModels
from tests.support.validation_env import failed
from tests.support.validation_env import wheel as tensorflow_wheel

pytestmark = pytest.mark.integration
SUPPORT = Path(__file__).parents[1] / "support"
TABLE = ("tenure", "charges")
CHURN = (*TABLE, "calls", "plan")
TASK = {"churned": "binary", "spam": "binary", "label": "multiclass", "price": "regression", "open": "binary"}
_EXPORTED: dict[str, Path] = {}


def models(environment: str, storage: Storage, bucket: str, state_dir: Path, scratch: Path) -> OwnModels:
    package = f"{bucket}/packages/{environment}/1/{environment}-1.0-py3-none-any.whl"
    storage.write(package, tensorflow_wheel() if environment == "validation_env" else own_models.frameworks_wheel())
    return OwnModels(storage, bucket, package, state_dir, scratch)


def exported(own: OwnModels, script: str) -> Path:
    """The folder of all models that a script exports. The script runs only once."""
    if script not in _EXPORTED:
        code = f"import runpy, sys\nsys.argv = ['', {str(own.scratch / 'train.npz')!r}, model_dir]\n"
        _EXPORTED[script] = own.train(code + f"runpy.run_path({str(SUPPORT / script)!r}, run_name='__main__')", "all")
    return _EXPORTED[script]


@pytest.fixture
def tensorflow(storage: Storage, bucket: str, validation_state_dir: Path, tmp_path: Path) -> OwnModels:
    return models("validation_env", storage, bucket, validation_state_dir, tmp_path)


@pytest.fixture
def frameworks(storage: Storage, bucket: str, validation_state_dir: Path, tmp_path: Path) -> OwnModels:
    return models("own_models", storage, bucket, validation_state_dir, tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "target", "columns", "signature"),
    [
        ("export", "savedmodel", "churned", CHURN, {}),
        ("keras", "keras", "churned", CHURN, {}),
        ("outputs", "savedmodel", "churned", TABLE, {"output": "late"}),
        ("batch", "savedmodel", "churned", TABLE, {}),
        ("matrix", "savedmodel", "churned", (*TABLE, "plan"), {}),
        ("bytes", "savedmodel", "label", ("image",), {}),
    ],
)
def test_a_tensorflow_model_is_validated(
    name: str, kind: str, target: str, columns: tuple[str, ...], signature: dict[str, Any], tensorflow: OwnModels
) -> None:
    folder = exported(tensorflow, "any_models_tensorflow.py") / name
    rules = replace(RULES, expected=ServingSignature.from_json(signature))
    report = tensorflow.validate(folder, tensorflow.register(target, columns, task=TASK[target]), rules)
    assert failed(report) == [], report.verdict.reasons
    assert (report.verdict.decision, report.model_kind) == (Decision.FIRST, kind)
    assert report.metric_value is not None
    assert report.metric_value > 0.99


def test_a_model_with_several_outputs_needs_the_name_of_the_predictions_output(tensorflow: OwnModels) -> None:
    folder = exported(tensorflow, "any_models_tensorflow.py") / "outputs"
    report = tensorflow.validate(folder, tensorflow.register("churned", TABLE))
    assert failed(report) == ["runs"]
    assert "say which holds the predictions: serving_signature={'output': '…'}" in report.verdict.reasons[0]


@pytest.mark.parametrize(
    ("name", "target", "columns", "least"),
    [
        ("onnx_plain", "churned", TABLE, 0.99),
        ("onnx_price", "price", ("charges",), -100.0),
        ("xgboost_classes", "label", ("image",), 0.9),
        ("xgboost_price", "price", ("charges",), -30_000.0),
        ("lightgbm_classes", "label", ("image",), 0.9),
        ("sklearn_text", "spam", ("message", "calls"), 0.99),
        ("sklearn_missing", "open", ("town", "tenure"), 0.99),
        ("sklearn_lightgbm", "open", ("shop", "town", "tenure"), 0.99),
        ("sklearn_xgboost", "open", ("shop", "town", "tenure"), 0.99),
        ("lightgbm_categories", "open", ("shop", "town", "tenure"), 0.99),
        ("xgboost_categories", "open", ("shop", "town", "tenure"), 0.99),
    ],
)
def test_a_model_of_another_framework_is_validated(
    name: str, target: str, columns: tuple[str, ...], least: float, frameworks: OwnModels
) -> None:
    folder = exported(frameworks, "any_models_frameworks.py") / name
    report = frameworks.validate(folder, frameworks.register(target, columns, task=TASK[target]))
    assert failed(report) == [], report.verdict.reasons
    assert (report.verdict.decision, report.model_kind) == (Decision.FIRST, name.partition("_")[0])
    assert report.metric_value is not None
    assert report.metric_value * (-1 if target == "price" else 1) > least
    predictions = load_predictions(frameworks.storage, JobDir(report.job_dir))
    assert predictions is not None
    assert predictions.values is not None
    assert len(predictions.values) == 400


def test_an_input_can_take_some_columns_in_another_order(frameworks: OwnModels) -> None:
    folder = exported(frameworks, "any_models_frameworks.py") / "onnx_reversed"
    rules = replace(RULES, expected=ServingSignature.from_json({"columns": {"X": ["charges", "tenure"]}}))
    report = frameworks.validate(folder, frameworks.register("churned", CHURN), rules)
    assert failed(report) == [], report.verdict.reasons
    assert report.metric_value is not None
    assert report.metric_value > 0.99


def test_a_missing_framework_is_an_environment_error(tensorflow: OwnModels, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "model.onnx").write_bytes(b"x")
    with pytest.raises(Exception, match=r"cannot load the model \(onnx\): No module named 'onnxruntime'"):
        tensorflow.validate(tmp_path / "foreign", tensorflow.register("churned", TABLE))
