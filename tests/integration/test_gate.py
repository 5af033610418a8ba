"""The gate against real models in a real TensorFlow: what it accepts, what it rejects, and that it survives them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlengine.core.errors import DatasetError, EnvironmentBuildError
from mlengine.core.layout import JobDir
from mlengine.core.verdict import Check, Decision, Thresholds
from mlengine.promotion.publish import publish
from mlengine.validation.environment import local_place
from mlengine.validation.report import load_predictions, load_report
from mlengine.validation.runner import Limits
from mlengine.validation.validation import Rules, Scope
from tests.integration.gate_lab import RULES, Lab, checks, failed

pytestmark = pytest.mark.integration


def test_the_first_good_model_is_first(lab: Lab) -> None:
    report = lab.judge("good")
    assert report.verdict.decision is Decision.FIRST
    assert checks(report) == {
        "files": "ok",
        "size": "ok",
        "signature": "ok",
        "devices": "ok",
        "ops": "ok",
        "runs": "ok",
        "keys come back": "ok",
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
    assert load_report(lab.storage, job_dir).to_json() == json.loads(json.dumps(report.to_json()))
    kept = load_predictions(lab.storage, job_dir)
    assert kept is not None
    right = sum(label == said for label, said in zip(kept.labels, kept.classes, strict=True))
    assert right / 10_000 == report.accuracy
    page = lab.storage.read(job_dir.page).decode()
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
        ("company", ["batch independence", "accuracy", "accuracy per class"], "depend on the rows beside it"),
    ],
)
def test_a_bad_model_is_rejected_with_its_reason(lab: Lab, model: str, reasons: list[str], words: str) -> None:
    report = lab.judge(model)
    assert report.verdict.decision is Decision.REJECTED
    assert failed(report) == reasons
    assert words in " ".join(report.verdict.reasons)
    assert words in " ".join(load_report(lab.storage, JobDir(report.job_dir)).verdict.reasons)
    assert not lab.storage.exists(f"{lab.bucket}/mnist/champion.json")


def test_a_model_that_hangs_is_ended(lab: Lab) -> None:
    report = lab.judge("hangs", replace(RULES, limits=Limits(seconds=4)))
    assert failed(report) == ["runs"]
    assert "was ended after 4 s at" in report.verdict.reasons[0]


def test_a_model_that_eats_memory_cannot(lab: Lab) -> None:
    report = lab.judge("gorges")
    assert failed(report) == ["runs"]
    assert "OOM when allocating tensor" in report.verdict.reasons[0]


def test_noise_does_not_reject_and_a_loss_does(lab: Lab) -> None:
    champion = lab.judge("good")
    publish(lab.storage, lab.bucket, champion, by="test")
    slightly = lab.judge("slightly_worse")
    difference = slightly.comparison["difference"]
    assert -0.002 < difference <= -0.001
    assert slightly.verdict.decision is Decision.ACCEPTED
    assert "points in accuracy" in slightly.verdict.reasons[1]
    assert checks(slightly)["latency ratio"] == "ok"
    assert checks(slightly)["size ratio"] == "ok"
    worse = lab.judge("worse", replace(RULES, thresholds=Thresholds(accuracy=0.9, per_class=None)))
    assert worse.verdict.decision is Decision.REJECTED
    assert failed(worse) == ["not worse than champion"]
    assert "Worse than the champion mnist_good" in worse.verdict.reasons[0]


def test_a_champion_whose_files_are_gone_is_compared_by_its_kept_predictions(lab: Lab) -> None:
    champion = lab.judge("good")
    publish(lab.storage, lab.bucket, champion, by="test")
    lab.storage.delete(f"{champion.model_uri}/saved_model.pb")
    report = lab.judge("slightly_worse")
    assert checks(report)["not worse than champion"] == "ok"
    assert report.comparison["lost"] > report.comparison["gained"]
    lab.storage.delete(JobDir(champion.job_dir).predictions)
    blind = lab.judge("slightly_worse")
    assert failed(blind) == ["not worse than champion"]
    assert "could not be asked" in blind.verdict.reasons[0]


def test_a_foreign_export_with_checks_of_the_trainers_own(lab: Lab) -> None:
    seen: dict[str, float] = {}

    def eights(model: Path, figures: Mapping[str, Any]) -> Check:
        assert (model / "saved_model.pb").exists()
        share = seen["share"] = figures["per_class"][8]
        return Check("eights", share, "≥ 0.999", passed=share >= 0.999, sentence="Eights are not all right.")

    def broken(model: Path, figures: Mapping[str, Any]) -> Check:
        raise ValueError("no such file")

    report = lab.judge("foreign", replace(RULES, own=(eights, broken)))
    assert "no manifest" in next(check.sentence for check in report.verdict.checks if check.name == "files")
    assert failed(report) == ["eights", "broken"]
    assert 0.9 < seen["share"] < 0.999
    assert "broken raised ValueError: no such file" in report.verdict.reasons


def test_without_a_savedmodel_the_files_are_checked(lab: Lab, tmp_path: Path) -> None:
    lab.models = tmp_path
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "weights.json").write_text("{}")
    report = lab.judge("own", Rules(scope=Scope.FILES))
    assert report.verdict.decision is Decision.FIRST
    assert checks(report) == {"files": "ok", "size": "ok"}


def test_what_is_wrong_around_the_model_is_raised(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset version"):
        lab.judge("good", version="2026-12-01")
    lab.place = local_place(lab.storage, [f"{lab.bucket}/packages/none.whl"], tmp_path)
    with pytest.raises(EnvironmentBuildError, match="no package at"):
        lab.judge("good")
