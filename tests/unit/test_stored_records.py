"""Objects and files that version 0.1 wrote still load, because a user's data must survive an upgrade."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends.local.record import Stored
from mlengine.champions.history import Champion
from mlengine.core.dataset import Manifest
from mlengine.core.errors import ObjectMissingError
from mlengine.core.job import JobRecord
from mlengine.core.layout import JobDir
from mlengine.core.spec import Role, TrainingSpec
from mlengine.storage.client import Storage
from mlengine.validation import cache
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.metrics.registry import compute_all
from mlengine.validation.predictions import load_predictions
from mlengine.validation.report import Report, load_report
from mlengine.validation.serving_signature import ServingSignature

RECORDS = Path(__file__).parents[1] / "records" / "v0.1"
JOB_ID = "mnist_2026_11_01_317c882a"


def stored(name: str) -> bytes:
    return (RECORDS / name).read_bytes()


def raw(name: str) -> Any:
    return json.loads(stored(name))


def test_an_old_job_record_is_read() -> None:
    record = JobRecord.from_bytes(stored("job.json"))
    assert (record.job_id, record.attempt, record.host, record.backend) == (JOB_ID, 1, "host-1", "local")
    assert record.owner["run_id"] == raw("job.json")["owner"]["run_id"]
    assert [event["event"] for event in record.history] == ["claimed", "fresh_submit"]
    handle = record.handle(f"gs://bkt/mnist/{JOB_ID}")
    assert handle is not None
    assert handle.name == raw("job.json")["name"]


def test_an_old_training_spec_is_read() -> None:
    spec = TrainingSpec.from_json(raw("job.json")["spec"])
    assert [(pool.role, pool.count) for pool in spec.pools] == [(Role.CHIEF, 1), (Role.WORKER, 1), (Role.PS, 1)]
    assert spec.args[:2] == ("--max_steps", "200")
    assert spec.max_running_seconds == 7200


def test_an_old_local_submission_is_read() -> None:
    submission = Stored.from_json(raw("local-submission.json"))
    assert submission.name == raw("job.json")["name"].partition(":")[2]
    assert submission.submission.spec.module == "trainer.task"


@pytest.mark.parametrize("name", ["champion.json", "champion-entry.json"])
def test_an_old_champion_is_read(name: str) -> None:
    champion = Champion.from_bytes(stored(name), name)
    assert (champion.serial, champion.job_id, champion.version) == (1, JOB_ID, "2026-11-01")
    assert champion.metric == "accuracy"
    assert champion.metric_value == pytest.approx(raw(name)["accuracy"])
    assert champion.fingerprint == raw("validated.json")["fingerprint"]


def test_an_old_dataset_manifest_is_read() -> None:
    manifest = Manifest.from_bytes(stored("dataset-manifest.json"))
    assert manifest.version == "2026-11-01"


def test_an_old_validation_cache_entry_is_read() -> None:
    entry = cache.Entry.from_bytes(stored("validated.json"))
    assert (entry.job_id, entry.inputs) == (JOB_ID, raw("job.json")["inputs"]["digest"])


def test_an_old_report_and_predictions_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job_dir = JobDir(f"gs://mlengine/mnist/{JOB_ID}")
    storage = Storage()
    objects = {
        job_dir.report: stored("report.json"),
        job_dir.predictions.replace(".parquet", ".json"): stored("predictions.json"),
    }

    def read(_self: Storage, uri: str) -> bytes:
        if uri not in objects:
            raise ObjectMissingError(uri)
        return objects[uri]

    monkeypatch.setattr(Storage, "read", read)
    report = load_report(storage, job_dir)
    assert report.verdict.decision.value == "first"
    assert report.usage == raw("report.json")["took"] != {}  # prose: ok
    for check, old in zip(report.verdict.checks, raw("report.json")["verdict"]["checks"], strict=True):
        assert (check.threshold, check.message) == (old["bound"], old["sentence"])  # prose: ok
    assert (report.main_metric, report.task) == ("accuracy", "multiclass")
    assert report.metric_value == pytest.approx(raw("champion.json")["accuracy"])
    old = raw("report.json")["thresholds"]
    accuracy = report.thresholds.metrics["accuracy"]
    assert (accuracy.min, accuracy.max_regression) == (old["accuracy"], old["tolerance"])
    assert report.thresholds.metrics["worst_class_recall"].min == old["per_class"]
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    signature = ServingSignature.from_report(report.serving_signature)
    assert (signature.key, signature.output) == ("key", "scores")
    predictions = load_predictions(storage, job_dir)
    assert predictions is not None
    assert predictions.values is None
    outcomes = Outcomes.of(predictions)
    assert outcomes.rows == 10_000
    assert compute_all(["accuracy", "log_loss"], outcomes)["accuracy"].number == pytest.approx(report.metric_value)
