"""Tests validation of real models in the trainer's real environment, with TensorFlow."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import mnist

from mlengine import datasets
from mlengine.core.errors import DatasetError, EnvironmentBuildError
from mlengine.core.layout import JobDir, dataset_dir
from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Check, Decision
from mlengine.promotion.publish import publish
from mlengine.validation.environment import local_environment
from mlengine.validation.job import load_job
from mlengine.validation.predictions import load_predictions
from mlengine.validation.report import load_report
from mlengine.validation.rules import Rules, Scope
from mlengine.validation.scoring_process import Limits
from mlengine.validation.serving_signature import ServingSignature
from mlengine.validation.validation import validate
from tests.support.validation_env import PACKAGE, RULES, SIGNATURE, ValidationEnv, checks, failed

pytestmark = pytest.mark.integration


def test_a_good_model_without_a_champion_is_first(validation_env: ValidationEnv) -> None:
    report = validation_env.validate("good")
    assert report.verdict.decision is Decision.FIRST
    assert checks(report) == {
        "files": "ok",
        "size": "ok",
        "signature": "ok",
        "devices": "ok",
        "ops": "ok",
        "runs": "ok",
        "keys returned": "ok",
        "batch independence": "ok",
        "latency": "skipped",
        "outputs": "ok",
        "finite predictions": "ok",
        "accuracy": "ok",
        "worst_class_recall": "ok",
        "not worse than champion": "skipped",
        "latency ratio": "skipped",
        "size ratio": "skipped",
    }
    assert report.metric_value is not None
    assert 0.95 < report.metric_value < 0.99
    assert (report.task, report.model_kind, report.main_metric) == ("multiclass", "savedmodel", "accuracy")
    assert set(report.metrics) >= {"accuracy", "balanced_accuracy", "f1_macro", "log_loss", "worst_class_recall"}
    assert np.sum(report.curves["confusion"]["rows"]) == 10_000
    job_dir = JobDir(report.job_dir)
    assert load_report(validation_env.storage, job_dir).to_json() == json.loads(json.dumps(report.to_json()))
    predictions = load_predictions(validation_env.storage, job_dir)
    assert predictions is not None
    assert predictions.values is not None
    assert (predictions.values.argmax(axis=1) == predictions.target).mean() == report.metric_value
    page = validation_env.storage.read(job_dir.page).decode()
    assert page.count("data:image/png;base64,") == 24
    assert "Accepted as the first" in page


@pytest.mark.parametrize(
    ("model", "reasons", "words"),
    [
        ("untrained", ["accuracy", "worst_class_recall"], "it must be ≥ 0.95"),
        (
            "nan",
            ["finite predictions", "accuracy", "worst_class_recall"],
            "The predictions of 10,000 of 10,000 rows are not finite",
        ),
        ("swapped_labels", ["accuracy", "worst_class_recall"], "worst_class_recall is 0.0"),
        ("other_signature", ["signature"], "no signature 'serving_default'; it has: predict"),
        ("wrong_dtype", ["signature"], "input 'image' is float64[-1,784] instead of float32[-1,784]"),
        ("cluster_device", ["devices"], "has nodes on /job:ps/task:0"),
        ("writes", ["ops"], "WriteFile"),
        ("damaged", ["files"], "variables/variables.data-00000-of-00001 does not have the checksum"),
        ("truncated", ["runs"], "failed at load"),
        ("lost_keys", ["keys returned"], "does not return the keys that were sent: -1, -5"),
        ("logits", ["outputs"], "to 3. To correct it: if they are logits"),
        ("company", ["batch independence", "accuracy", "worst_class_recall"], "depend on the other rows of its batch"),
    ],
)
def test_a_bad_model_is_rejected_with_its_reason(
    validation_env: ValidationEnv, model: str, reasons: list[str], words: str
) -> None:
    report = validation_env.validate(model)
    assert report.verdict.decision is Decision.REJECTED
    assert failed(report) == reasons
    assert words in " ".join(report.verdict.reasons)
    assert words in " ".join(load_report(validation_env.storage, JobDir(report.job_dir)).verdict.reasons)
    assert not validation_env.storage.exists(f"{validation_env.bucket}/mnist/champion.json")


def expecting(**fields: Any) -> Rules:
    """The validation_env's rules with a different serving signature."""
    return replace(RULES, expected=ServingSignature.from_json({**SIGNATURE, **fields}))


KEY = {"key": "int64[-1]"}
KERAS = {
    "inputs": {"sepal-length": "float32[-1,784]"},
    "outputs": {"output_0": "float32[-1,10]"},
    "key": None,
    "features": "sepal-length",
}


@pytest.mark.parametrize(
    ("model", "scores", "words"),
    [
        ("sigmoid", "float32[-1,1]", "1 number a row, and the dataset has 10 classes"),
        ("regression", "float32[-1]", "whether one number is a probability, a value or a class number is unknown"),
        ("hidden_sigmoid", "float32[-1,-1]", "1 number a row, and the dataset has 10 classes"),
        ("nine_classes", "float32[-1,9]", "9 numbers a row, and the dataset has 10 classes (0, 1, 2, 3, 4, 5, …)"),
    ],
)
def test_outputs_that_do_not_match_the_classes_give_no_metrics(
    validation_env: ValidationEnv, model: str, scores: str, words: str
) -> None:
    rules = expecting(outputs={**KEY, "scores": scores}, activation="scores")
    report = validation_env.validate(model, rules)
    assert failed(report) == ["outputs"]
    assert words in report.verdict.reasons[0]
    assert report.metrics == {}
    assert load_predictions(validation_env.storage, JobDir(report.job_dir)) is None, (
        "there must be no predictions for later comparisons"
    )
    by_signature = validation_env.validate(model, replace(rules, scope=Scope.SIGNATURE), job_id=f"{model}_by_signature")
    assert by_signature.verdict.decision is Decision.FIRST


def test_a_keras_model_with_a_lookup_table_and_a_hyphenated_input_is_validated(validation_env: ValidationEnv) -> None:
    """`/job:localhost` is the local machine; ``sepal-length`` is the input's name in the SignatureDef."""
    report = validation_env.validate("keras", expecting(**KERAS))
    assert failed(report) == []
    assert report.verdict.decision is Decision.FIRST
    assert report.metric_value is not None
    assert report.metric_value > 0.95
    assert report.serving_signature["features"] == "sepal-length"
    # The next model has another serving signature. Both run on the same rows.
    publish(validation_env.storage, validation_env.bucket, report, by="test")
    other = validation_env.validate("good")
    assert other.verdict.decision is Decision.ACCEPTED
    assert other.comparison["accuracy"]["gain"] == 0
    assert "latency_ms" in other.baseline, "the champion must be run, instead of using its stored predictions"


def test_a_model_of_bytes_gets_unscaled_values(validation_env: ValidationEnv) -> None:
    inputs = {**KEY, "1st": "uint8[-1,784]"}
    report = validation_env.validate("bytes", expecting(inputs=inputs, features="1st"))
    assert failed(report) == []
    assert report.metric_value is not None
    assert report.metric_value > 0.95


def test_rounding_of_large_scores_and_local_gpus_are_accepted(validation_env: ValidationEnv) -> None:
    report = validation_env.validate("large_scores", expecting(activation="scores"))
    assert report.figures["batch_difference"] > 1e-4, "the rounding difference must exceed an absolute limit"
    assert failed(report) == []
    assert failed(validation_env.validate("local_gpu")) == []


def test_rows_of_floats_are_not_scaled(validation_env: ValidationEnv, digits: Path, tmp_path: Path) -> None:
    """The same digits, stored as values between 0 and 1."""
    source = mnist.subset(digits, tmp_path, train=500, heldout=1000)
    for path in source.glob("*-images-*"):
        data = path.read_bytes()
        values = struct.pack(f">{len(data) - 16}f", *(byte / 255 for byte in data[16:]))
        path.write_bytes(b"\0\0\x0d\x03" + data[4:16] + values)
    datasets.add(validation_env.storage, validation_env.bucket, "floats", "v1", source, license="x", source="x")
    job_dir = validation_env.job("good")
    uri = dataset_dir(validation_env.bucket, "floats", "v1")
    job = load_job(validation_env.storage, job_dir.uri, package_uris=[PACKAGE], dataset=uri)
    rules = replace(RULES, thresholds=Thresholds.from_json({"accuracy": 0.95}))
    report = validate(validation_env.storage, job, rules, validation_env.place)
    assert failed(report) == []
    assert report.metric_value is not None
    assert report.metric_value > 0.95
    assert len(report.worst_rows) > 0, "float images must be shown too"


def test_a_model_that_hangs_is_killed(validation_env: ValidationEnv) -> None:
    report = validation_env.validate("hangs", replace(RULES, limits=Limits(seconds=4)))
    assert failed(report) == ["runs"]
    assert "was killed after 4 s at" in report.verdict.reasons[0]


def test_a_model_that_allocates_too_much_memory_fails(validation_env: ValidationEnv) -> None:
    report = validation_env.validate("gorges")
    assert failed(report) == ["runs"]
    assert "OOM when allocating tensor" in report.verdict.reasons[0]


def test_a_slightly_worse_model_is_accepted_and_a_worse_one_is_rejected(validation_env: ValidationEnv) -> None:
    champion = validation_env.validate("good")
    publish(validation_env.storage, validation_env.bucket, champion, by="test")
    slightly = validation_env.validate("slightly_worse")
    difference = slightly.comparison["accuracy"]["gain"]
    assert -0.002 < difference <= -0.001
    assert slightly.verdict.decision is Decision.ACCEPTED
    assert "Not worse than the champion: accuracy is" in slightly.verdict.reasons[1]
    assert checks(slightly)["latency ratio"] == "ok"
    assert checks(slightly)["size ratio"] == "ok"
    worse = validation_env.validate("worse", replace(RULES, thresholds=Thresholds.from_json({"accuracy": 0.9})))
    assert worse.verdict.decision is Decision.REJECTED
    assert failed(worse) == ["not worse than champion: accuracy"]
    assert "Worse than the champion: accuracy is" in worse.verdict.reasons[0]


def test_a_champion_without_files_is_compared_by_its_stored_predictions(validation_env: ValidationEnv) -> None:
    champion = validation_env.validate("good")
    publish(validation_env.storage, validation_env.bucket, champion, by="test")
    validation_env.storage.delete(f"{champion.model_uri}/saved_model.pb")
    report = validation_env.validate("slightly_worse")
    assert checks(report)["not worse than champion: accuracy"] == "ok"
    assert report.comparison["accuracy"]["gain"] < 0
    validation_env.storage.delete(JobDir(champion.job_dir).predictions)
    not_compared = validation_env.validate("slightly_worse")
    assert not_compared.verdict.decision is Decision.NOT_COMPARED
    assert failed(not_compared) == []
    assert "mnist_good could not be run on these rows" in not_compared.verdict.reasons[0]
    accepted = validation_env.validate("slightly_worse", replace(RULES, require_comparison=False))
    assert accepted.verdict.decision is Decision.ACCEPTED
    assert "mnist_good could not be run on these rows" in accepted.verdict.reasons[-1]


def test_extra_checks_of_an_export_without_manifest(validation_env: ValidationEnv) -> None:
    seen: dict[str, float] = {}

    def recall_of_eights(outcomes: Any) -> float:
        rows = outcomes.target == 8
        return float((outcomes.predicted[rows] == 8).mean())

    def eights(model: Path, figures: Mapping[str, Any]) -> Check:
        assert (model / "saved_model.pb").exists()
        share = seen["share"] = recall_of_eights(figures["predictions"])
        return Check("eights", share, "≥ 0.999", passed=share >= 0.999, message="Eights are not all right.")

    def broken(model: Path, figures: Mapping[str, Any]) -> Check:
        raise ValueError("no such file")

    report = validation_env.validate("foreign", replace(RULES, extra_checks=(eights, broken)))
    assert "no manifest" in next(check.message for check in report.verdict.checks if check.name == "files")
    assert failed(report) == ["eights", "broken"]
    assert 0.9 < seen["share"] < 0.999
    assert "broken raised ValueError: no such file" in report.verdict.reasons


def test_a_model_that_is_not_a_savedmodel_has_its_files_checked(validation_env: ValidationEnv, tmp_path: Path) -> None:
    validation_env.models = tmp_path
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "weights.json").write_text("{}")
    report = validation_env.validate("own", Rules(scope=Scope.FILES))
    assert report.verdict.decision is Decision.FIRST
    assert checks(report) == {"files": "ok", "size": "ok"}
    publish(validation_env.storage, validation_env.bucket, report, by="test")
    second = validation_env.validate("own", Rules(scope=Scope.FILES), job_id="second")
    assert second.verdict.decision is Decision.NOT_COMPARED
    assert "The model is not run with validation_level='files'." in second.verdict.reasons[0]
    assert checks(second) == {
        "files": "ok",
        "size": "ok",
        "not worse than champion": "skipped",
        "latency ratio": "skipped",
        "size ratio": "ok",
    }


def test_problems_outside_the_model_raise_errors(validation_env: ValidationEnv, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset version"):
        validation_env.validate("good", version="2026-12-01")
    validation_env.place = local_environment(
        validation_env.storage, [f"{validation_env.bucket}/packages/none.whl"], tmp_path
    )
    with pytest.raises(EnvironmentBuildError, match="no package at"):
        validation_env.validate("good")
