"""Validation of real models in a real TensorFlow: what it accepts, what it rejects, and that it survives them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripts import mnist

from mlengine import datasets
from mlengine.core.errors import DatasetError, EnvironmentBuildError
from mlengine.core.layout import JobDir, dataset_dir
from mlengine.core.verdict import Check, Decision, Thresholds
from mlengine.promotion.publish import publish
from mlengine.validation.environment import local_place
from mlengine.validation.report import load_predictions, load_report
from mlengine.validation.rules import Rules, Scope
from mlengine.validation.runner import Limits
from mlengine.validation.signature import Expectation
from mlengine.validation.subject import find_subject
from mlengine.validation.validation import validate
from tests.support.validation_env import PACKAGE, RULES, ValidationEnv, checks, failed

pytestmark = pytest.mark.integration


def test_the_first_good_model_is_first(validation_env: ValidationEnv) -> None:
    report = validation_env.validate("good")
    assert report.verdict.decision is Decision.FIRST
    assert checks(report) == {
        "files": "ok",
        "size": "ok",
        "signature": "ok",
        "devices": "ok",
        "ops": "ok",
        "runs": "ok",
        "keys come back": "ok",
        "one score per class": "ok",
        "finite scores": "ok",
        "scores are probabilities": "ok",
        "batch independence": "ok",
        "accuracy": "ok",
        "accuracy per class": "ok",
        "latency": "skipped",
        "not worse than champion": "skipped",
        "latency ratio": "skipped",
        "size ratio": "skipped",
    }
    assert report.accuracy is not None
    assert 0.95 < report.accuracy < 0.99
    assert sum(map(sum, report.figures["confusion"])) == 10_000
    # What is kept is what was said.
    job_dir = JobDir(report.job_dir)
    assert load_report(validation_env.storage, job_dir).to_json() == json.loads(json.dumps(report.to_json()))
    kept = load_predictions(validation_env.storage, job_dir)
    assert kept is not None
    right = sum(label == said for label, said in zip(kept.labels, kept.classes, strict=True))
    assert right / 10_000 == report.accuracy
    page = validation_env.storage.read(job_dir.page).decode()
    assert page.count("data:image/png;base64,") == 24
    assert "Accepted as the first" in page


@pytest.mark.parametrize(
    ("model", "reasons", "words"),
    [
        ("untrained", ["accuracy", "accuracy per class"], "under 0.95"),
        ("nan", ["finite scores", "accuracy", "accuracy per class"], "10000 of 10000 rows are not numbers"),
        ("swapped_labels", ["accuracy", "accuracy per class"], "2 of 10 classes are under 0.9: 3 ("),
        ("other_signature", ["signature"], "no signature 'serving_default'; it has: predict"),
        ("wrong_dtype", ["signature"], "input 'image' is float64[-1,784], not float32[-1,784]"),
        ("cluster_device", ["devices"], "still tied to /job:ps/task:0"),
        ("writes", ["ops"], "WriteFile"),
        ("damaged", ["files"], "variables/variables.data-00000-of-00001 does not have the checksum"),
        ("truncated", ["runs"], "failed at load"),
        ("lost_keys", ["keys come back"], "not come back as sent: -1, -5"),
        ("logits", ["scores are probabilities"], "a row's sum is off by"),
        ("company", ["batch independence", "accuracy", "accuracy per class"], "depend on the other rows of its batch"),
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
    """The validation_env's rules for a model that is called otherwise."""
    return replace(RULES, expected=Expectation.from_json(fields))


KEY = {"key": "int64[-1]"}
KERAS = {
    "inputs": {"sepal-length": "float32[-1,784]"},
    "outputs": {"output_0": "float32[-1,10]"},
    "key": None,
    "features": "sepal-length",
    "scores": "output_0",
}


@pytest.mark.parametrize(
    ("model", "scores", "words"),
    [
        ("sigmoid", "float32[-1,1]", "has a single value a row, and the dataset has 10 classes"),
        ("regression", "float32[-1]", "has a single value a row, and the dataset has 10 classes"),
        ("hidden_sigmoid", "float32[-1,-1]", "has a single value a row, and the dataset has 10 classes"),
        ("nine_classes", "float32[-1,9]", "has 9 scores a row, and the dataset has 10 classes"),
    ],
)
def test_scores_that_are_not_one_per_class_have_no_accuracy(
    validation_env: ValidationEnv, model: str, scores: str, words: str
) -> None:
    rules = expecting(outputs={**KEY, "scores": scores}, probabilities=False)
    report = validation_env.validate(model, rules)
    assert failed(report) == ["one score per class"]
    assert words in report.verdict.reasons[0]
    assert report.accuracy is None
    assert load_predictions(validation_env.storage, JobDir(report.job_dir)) is None, (
        "nothing to compare a later model with"
    )
    declared = "-1,-1" not in scores
    assert (report.figures == {}) is declared, "what the signature says need not be run"
    by_files = validation_env.validate(model, replace(rules, scope=Scope.SIGNATURE), job_id=f"{model}_by_signature")
    assert by_files.verdict.decision is Decision.FIRST


def test_a_keras_model_with_a_lookup_and_a_name_that_python_has_not(validation_env: ValidationEnv) -> None:
    """`/job:localhost` is the machine itself; ``sepal-length`` is the input's name in the SignatureDef."""
    report = validation_env.validate("keras", expecting(**KERAS))
    assert failed(report) == []
    assert report.verdict.decision is Decision.FIRST
    assert report.accuracy is not None
    assert report.accuracy > 0.95
    assert report.serving_signature["features"] == "sepal-length"
    # The next one is called otherwise, and both run on the same rows.
    publish(validation_env.storage, validation_env.bucket, report, by="test")
    other = validation_env.validate("good")
    assert other.verdict.decision is Decision.ACCEPTED
    assert (other.comparison["gained"], other.comparison["lost"]) == (0, 0)
    assert "latency_ms" in other.baseline, "the champion itself was run, not its predictions read"


def test_a_model_of_bytes_gets_them_as_they_are(validation_env: ValidationEnv) -> None:
    inputs = {**KEY, "1st": "uint8[-1,784]"}
    report = validation_env.validate("bytes", expecting(inputs=inputs, features="1st"))
    assert failed(report) == []
    assert report.accuracy is not None
    assert report.accuracy > 0.95


def test_large_scores_are_rounded_more_and_a_local_gpu_is_no_cluster(validation_env: ValidationEnv) -> None:
    report = validation_env.validate("large_scores", expecting(probabilities=False))
    assert report.figures["batch_difference"] > 1e-4, "more than an absolute bound allows"
    assert failed(report) == []
    assert failed(validation_env.validate("local_gpu")) == []


def test_rows_of_floats_are_fed_as_they_are(validation_env: ValidationEnv, digits: Path, tmp_path: Path) -> None:
    """The same digits, stored as shares of one."""
    source = mnist.subset(digits, tmp_path, train=500, heldout=1000)
    for path in source.glob("*-images-*"):
        data = path.read_bytes()
        values = struct.pack(f">{len(data) - 16}f", *(byte / 255 for byte in data[16:]))
        path.write_bytes(b"\0\0\x0d\x03" + data[4:16] + values)
    datasets.add(validation_env.storage, validation_env.bucket, "floats", "v1", source, license="x", source="x")
    job_dir = validation_env.job("good")
    uri = dataset_dir(validation_env.bucket, "floats", "v1")
    subject = find_subject(validation_env.storage, job_dir.uri, package_uris=[PACKAGE], dataset=uri)
    rules = replace(RULES, thresholds=Thresholds(accuracy=0.95, per_class=None))
    report = validate(validation_env.storage, subject, rules, validation_env.place)
    assert failed(report) == []
    assert report.accuracy is not None
    assert report.accuracy > 0.95
    assert len(report.mistakes) > 0, "shown as pictures all the same"


def test_a_model_that_hangs_is_ended(validation_env: ValidationEnv) -> None:
    report = validation_env.validate("hangs", replace(RULES, limits=Limits(seconds=4)))
    assert failed(report) == ["runs"]
    assert "was ended after 4 s at" in report.verdict.reasons[0]


def test_a_model_that_eats_memory_cannot(validation_env: ValidationEnv) -> None:
    report = validation_env.validate("gorges")
    assert failed(report) == ["runs"]
    assert "OOM when allocating tensor" in report.verdict.reasons[0]


def test_noise_does_not_reject_and_a_loss_does(validation_env: ValidationEnv) -> None:
    champion = validation_env.validate("good")
    publish(validation_env.storage, validation_env.bucket, champion, by="test")
    slightly = validation_env.validate("slightly_worse")
    difference = slightly.comparison["difference"]
    assert -0.002 < difference <= -0.001
    assert slightly.verdict.decision is Decision.ACCEPTED
    assert "points in accuracy" in slightly.verdict.reasons[1]
    assert checks(slightly)["latency ratio"] == "ok"
    assert checks(slightly)["size ratio"] == "ok"
    worse = validation_env.validate("worse", replace(RULES, thresholds=Thresholds(accuracy=0.9, per_class=None)))
    assert worse.verdict.decision is Decision.REJECTED
    assert failed(worse) == ["not worse than champion"]
    assert "Worse than the champion mnist_good" in worse.verdict.reasons[0]


def test_a_champion_whose_files_are_gone_is_compared_by_its_kept_predictions(validation_env: ValidationEnv) -> None:
    champion = validation_env.validate("good")
    publish(validation_env.storage, validation_env.bucket, champion, by="test")
    validation_env.storage.delete(f"{champion.model_uri}/saved_model.pb")
    report = validation_env.validate("slightly_worse")
    assert checks(report)["not worse than champion"] == "ok"
    assert report.comparison["lost"] > report.comparison["gained"]
    validation_env.storage.delete(JobDir(champion.job_dir).predictions)
    blind = validation_env.validate("slightly_worse")
    assert blind.verdict.decision is Decision.NOT_COMPARED
    assert failed(blind) == []
    assert "mnist_good could not be run on these rows" in blind.verdict.reasons[0]
    accepted = validation_env.validate("slightly_worse", replace(RULES, require_comparison=False))
    assert accepted.verdict.decision is Decision.ACCEPTED
    assert "mnist_good could not be run on these rows" in accepted.verdict.reasons[-1]


def test_a_foreign_export_with_checks_of_the_trainers_own(validation_env: ValidationEnv) -> None:
    seen: dict[str, float] = {}

    def eights(model: Path, figures: Mapping[str, Any]) -> Check:
        assert (model / "saved_model.pb").exists()
        share = seen["share"] = figures["per_class"][8]
        return Check("eights", share, "≥ 0.999", passed=share >= 0.999, sentence="Eights are not all right.")

    def broken(model: Path, figures: Mapping[str, Any]) -> Check:
        raise ValueError("no such file")

    report = validation_env.validate("foreign", replace(RULES, own=(eights, broken)))
    assert "no manifest" in next(check.sentence for check in report.verdict.checks if check.name == "files")
    assert failed(report) == ["eights", "broken"]
    assert 0.9 < seen["share"] < 0.999
    assert "broken raised ValueError: no such file" in report.verdict.reasons


def test_without_a_savedmodel_the_files_are_checked(validation_env: ValidationEnv, tmp_path: Path) -> None:
    validation_env.models = tmp_path
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "weights.json").write_text("{}")
    report = validation_env.validate("own", Rules(scope=Scope.FILES))
    assert report.verdict.decision is Decision.FIRST
    assert checks(report) == {"files": "ok", "size": "ok"}
    publish(validation_env.storage, validation_env.bucket, report, by="test")
    second = validation_env.validate("own", Rules(scope=Scope.FILES), job_id="second")
    assert second.verdict.decision is Decision.NOT_COMPARED
    assert "With validation_level='files' the model is not run." in second.verdict.reasons[0]
    assert checks(second) == {
        "files": "ok",
        "size": "ok",
        "not worse than champion": "skipped",
        "latency ratio": "skipped",
        "size ratio": "ok",
    }


def test_what_is_wrong_around_the_model_is_raised(validation_env: ValidationEnv, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset version"):
        validation_env.validate("good", version="2026-12-01")
    validation_env.place = local_place(validation_env.storage, [f"{validation_env.bucket}/packages/none.whl"], tmp_path)
    with pytest.raises(EnvironmentBuildError, match="no package at"):
        validation_env.validate("good")
