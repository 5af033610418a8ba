"""Tests any model on any data: the recipes of docs/own-model.md, each framework's models, correct and wrong scorers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlengine.core.verdict import Decision
from mlengine.promotion.publish import publish
from mlengine.storage.client import Storage
from mlengine.validation.report import Report
from mlengine.validation.rules import Rules
from mlengine.validation.serving_signature import ServingSignature
from tests.support import own_models
from tests.support.own_models import RULES, OwnModels, recipes, thresholds
from tests.support.validation_env import checks, failed
from tests.support.validation_env import wheel as tensorflow_wheel

pytestmark = pytest.mark.integration

CHURN = ("tenure", "charges", "plan")
# By recipe: the dataset's target and columns, and the main metric with its required minimum.
RECIPES = {
    "tensorflow-binary": ("churned", CHURN, "roc_auc", 0.9),
    "tensorflow-text": ("spam", ("message",), "roc_auc", 0.99),
    "tensorflow-image": ("label", ("image",), "accuracy", 0.9),
    "frameworks-binary": ("churned", CHURN, "roc_auc", 0.95),
}
TABLE = """
import joblib
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

frame = pd.DataFrame({name: train[name] for name in ("tenure", "charges", "plan")})
columns = make_column_transformer((OneHotEncoder(), ["plan"]), (StandardScaler(), ["tenure", "charges"]))
"""
# By name: the code that exports a model, the dataset's target, and the main metric's minimum or maximum.
EXPORTS = {
    "sklearn": (
        TABLE + 'joblib.dump(make_pipeline(columns, LogisticRegression()).fit(frame, train["churned"]),'
        ' f"{model_dir}/model.joblib")',
        "churned",
        0.99,
    ),
    "lightgbm": (
        (
            "import lightgbm, numpy as np\n"
            'x = np.stack([train["tenure"], train["charges"]], 1)\n'
            'rows = lightgbm.Dataset(x, train["churned"] == "yes", feature_name=["tenure", "charges"])\n'
            'lightgbm.train({"objective": "binary", "verbose": -1}, rows, 50).save_model(f"{model_dir}/model.txt")\n'
        ),
        "churned",
        0.95,
    ),
    "onnx with a dict of probabilities": (
        (
            "import numpy as np\nfrom skl2onnx import to_onnx\nfrom sklearn.linear_model import LogisticRegression\n"
            'x = np.stack([train["tenure"], train["charges"]], 1)\n'
            'model = LogisticRegression(max_iter=1000).fit(x, train["churned"])\n'
            'open(f"{model_dir}/model.onnx", "wb").write(to_onnx(model, x[:1]).SerializeToString())\n'
        ),
        "churned",
        0.99,
    ),
    "a regression": (
        TABLE + 'joblib.dump(make_pipeline(columns, LinearRegression()).fit(frame, train["price"]),'
        ' f"{model_dir}/model.joblib")',
        "price",
        1.0,
    ),
}


@pytest.fixture
def frameworks(storage: Storage, bucket: str, validation_state_dir: Path, tmp_path: Path) -> OwnModels:
    package = f"{bucket}/packages/own_models/1/own_models-1.0-py3-none-any.whl"
    storage.write(package, own_models.frameworks_wheel())
    return OwnModels(storage, bucket, package, validation_state_dir, tmp_path)


@pytest.fixture
def tensorflow(storage: Storage, bucket: str, validation_state_dir: Path, tmp_path: Path) -> OwnModels:
    package = f"{bucket}/packages/validation_env/1/validation_env-1.0-py3-none-any.whl"
    storage.write(package, tensorflow_wheel())
    return OwnModels(storage, bucket, package, validation_state_dir, tmp_path)


def test_each_recipe_is_run() -> None:
    assert recipes().keys() == {*RECIPES, "frameworks-scorer"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_of_the_page_is_validated(recipe: str, frameworks: OwnModels, tensorflow: OwnModels) -> None:
    environment, code = recipes()[recipe]
    models = tensorflow if environment == "tensorflow" else frameworks
    target, columns, metric, least = RECIPES[recipe]
    task = "multiclass" if target == "label" else None
    report = models.validate(models.train(code, recipe), models.register(target, columns, task=task))
    assert report.verdict.decision is Decision.FIRST, report.verdict.reasons
    assert report.main_metric == metric
    assert report.metric_value is not None
    assert report.metric_value >= least
    assert checks(report)["batch independence"] == "ok"


def test_the_scorer_of_the_page_works(frameworks: OwnModels) -> None:
    model = frameworks.scratch / "model"
    model.mkdir()
    (model / "threshold.json").write_text('{"charges": 65}')
    report = frameworks.validate(model, frameworks.register("churned", CHURN), replace(RULES, scorer="recipe:load"))
    assert report.verdict.decision is Decision.FIRST, report.verdict.reasons
    assert (report.model_kind, report.scorer) == ("scorer", "recipe:load")
    assert report.metrics["accuracy"] is not None
    assert 0.6 < report.metrics["accuracy"] < 0.9


@pytest.mark.parametrize("export", EXPORTS)
def test_a_model_of_each_framework_is_validated(export: str, frameworks: OwnModels) -> None:
    code, target, limit = EXPORTS[export]
    columns = CHURN if export in {"sklearn", "a regression"} else ("tenure", "charges")
    report = frameworks.validate(frameworks.train(code, "export"), frameworks.register(target, columns))
    assert report.verdict.decision is Decision.FIRST, report.verdict.reasons
    assert report.metric_value is not None
    if target == "price":
        assert report.main_metric == "mean_absolute_error"
        assert report.metric_value < limit
    else:
        assert report.metric_value >= limit


def scorer(models: OwnModels, name: str, dataset: str, rules: Rules = RULES) -> Report:
    model = models.scratch / f"model-{name}"
    model.mkdir(exist_ok=True)
    (model / "weights.bin").write_bytes(name.encode())
    return models.validate(model, dataset, replace(rules, scorer=f"own_models:{name}"), name=name)


def test_binary_models_with_one_output_get_their_own_accuracy(frameworks: OwnModels) -> None:
    """The single output is the probability of the second class.

    Taking its largest column would predict the same for every row.
    """
    dataset = frameworks.register("churned", CHURN)
    reports = {}
    for name in ("right", "half", "wrong"):
        reports[name] = scorer(frameworks, name, dataset)
        publish(frameworks.storage, frameworks.bucket, reports[name], by="test")
    accuracies = [reports[name].metrics["accuracy"] for name in ("right", "half", "wrong")]
    assert accuracies[0] == 1.0
    assert accuracies[1] is not None
    assert 0.6 < accuracies[1] < 0.95
    assert accuracies[2] == 0.0
    assert [report.verdict.decision for report in reports.values()] == [
        Decision.FIRST,
        Decision.REJECTED,
        Decision.REJECTED,
    ]
    assert "Worse than the champion: roc_auc is 0, the champion's is 1" in " ".join(reports["wrong"].verdict.reasons)


def test_a_regression_with_large_values_is_validated(frameworks: OwnModels) -> None:
    dataset = frameworks.register("price", ("charges",))
    report = scorer(frameworks, "price", dataset, replace(RULES, thresholds=thresholds(mean_absolute_error={"max": 5})))
    assert report.verdict.decision is Decision.FIRST, report.verdict.reasons
    assert report.task == "regression"
    assert report.metrics["mean_absolute_error"] == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "ZeroDivisionError: division by zero"),
        ("too_few", "rows gave predictions of shape"),
        ("not_finite", "The predictions of 400 of 400 rows are not finite"),
        ("wrong_shape", "a row has predictions of shape [2, 2]; a list is needed"),
        ("text", "not numbers"),
        ("price", "the model's outputs are not probabilities: they go from"),
        ("missing", "scorer 'own_models:missing' cannot be imported"),
    ],
)
def test_a_faulty_scorer_is_rejected_with_the_cause(name: str, message: str, frameworks: OwnModels) -> None:
    report = scorer(frameworks, name, frameworks.register("churned", CHURN))
    assert report.verdict.decision is Decision.REJECTED
    assert message in " ".join(report.verdict.reasons)


def test_slices_are_checked_and_an_unknown_column_is_an_error(frameworks: OwnModels) -> None:
    by_class = thresholds(slices={"by": "plan", "metric": "accuracy", "min": 0.99, "min_rows": 10})
    report = scorer(frameworks, "right", frameworks.register("churned", CHURN), replace(RULES, thresholds=by_class))
    assert checks(report)["accuracy by plan"] == "ok"
    undefined = thresholds(slices={"by": "churned_as_text", "metric": "roc_auc", "min": 0.5})
    with pytest.raises(Exception, match="has no column 'churned_as_text'"):
        scorer(frameworks, "half", f"{frameworks.bucket}/datasets/data/v1", replace(RULES, thresholds=undefined))


def test_a_model_with_other_classes_than_the_dataset_is_rejected(frameworks: OwnModels) -> None:
    code = EXPORTS["sklearn"][0].replace('train["churned"]', 'np.where(train["churned"] == "yes", "leaves", "stays")')
    report = frameworks.validate(frameworks.train(code, "classes"), frameworks.register("churned", CHURN))
    assert failed(report) == ["runs"]
    assert "the estimator has the classes ['leaves', 'stays']; the dataset has ['no', 'yes']" in " ".join(
        report.verdict.reasons
    )


def test_inputs_with_other_names_than_the_columns_are_mapped(tensorflow: OwnModels) -> None:
    _, code = recipes()["tensorflow-text"]
    model = tensorflow.train(code.replace('name="message"', 'name="body"'), "renamed")
    dataset = tensorflow.register("spam", ("message", "calls"))
    report = tensorflow.validate(model, dataset)
    assert failed(report) == ["runs"]
    assert "calls has int64 values, and the model's input takes text" in " ".join(report.verdict.reasons)
    mapped = replace(RULES, expected=ServingSignature.from_json({"columns": {"body": "message"}}))
    assert tensorflow.validate(model, dataset, mapped, name="mapped").verdict.decision is Decision.FIRST
