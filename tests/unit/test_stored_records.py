"""Objects and files that version 0.1 wrote still load: what a user has stored must survive an upgrade."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends.local.record import Stored
from mlengine.champions.history import Champion
from mlengine.core.dataset import Manifest
from mlengine.core.job import JobRecord
from mlengine.core.layout import JobDir
from mlengine.core.spec import Role, TrainingSpec
from mlengine.storage.client import Storage
from mlengine.validation import cache
from mlengine.validation.report import load_predictions, load_report

RECORDS = Path(__file__).parents[1] / "records" / "v0.1"
JOB_ID = "mnist_2026_11_01_317c882a"


def stored(name: str) -> bytes:
    return (RECORDS / name).read_bytes()


def raw(name: str) -> Any:
    return json.loads(stored(name))


def test_job_record() -> None:
    record = JobRecord.from_bytes(stored("job.json"))
    assert (record.job_id, record.attempt, record.host, record.backend) == (JOB_ID, 1, "host-1", "local")
    assert record.owner["run_id"] == raw("job.json")["owner"]["run_id"]
    assert [event["event"] for event in record.history] == ["claimed", "fresh_submit"]
    handle = record.handle(f"gs://bkt/mnist/{JOB_ID}")
    assert handle is not None
    assert handle.name == raw("job.json")["name"]


def test_training_spec() -> None:
    spec = TrainingSpec.from_json(raw("job.json")["spec"])
    assert [(pool.role, pool.count) for pool in spec.pools] == [(Role.CHIEF, 1), (Role.WORKER, 1), (Role.PS, 1)]
    assert spec.args[:2] == ("--max_steps", "200")
    assert spec.max_running_seconds == 7200


def test_local_submission() -> None:
    submission = Stored.from_json(raw("local-submission.json"))
    assert submission.name == raw("job.json")["name"].partition(":")[2]
    assert submission.submission.spec.module == "trainer.task"


@pytest.mark.parametrize("name", ["champion.json", "champion-entry.json"])
def test_champion(name: str) -> None:
    champion = Champion.from_bytes(stored(name), name)
    assert (champion.serial, champion.job_id, champion.version) == (1, JOB_ID, "2026-11-01")
    assert champion.accuracy == pytest.approx(raw(name)["accuracy"])
    assert champion.fingerprint == raw("validated.json")["fingerprint"]


def test_dataset_manifest() -> None:
    manifest = Manifest.from_bytes(stored("dataset-manifest.json"))
    assert manifest.version == "2026-11-01"


def test_validation_cache_entry() -> None:
    entry = cache.Entry.from_bytes(stored("validated.json"))
    assert (entry.job_id, entry.inputs) == (JOB_ID, raw("job.json")["inputs"]["digest"])


def test_report_and_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job_dir = JobDir(f"gs://mlengine/mnist/{JOB_ID}")
    storage = Storage()
    objects = {job_dir.report: stored("report.json"), job_dir.predictions: stored("predictions.json")}
    monkeypatch.setattr(Storage, "read", lambda _self, uri: objects[uri])
    report = load_report(storage, job_dir)
    assert report.verdict.decision.value == "first"
    assert report.usage == raw("report.json")["took"] != {}  # prose: ok
    for check, old in zip(report.verdict.checks, raw("report.json")["verdict"]["checks"], strict=True):
        assert (check.threshold, check.message) == (old["bound"], old["sentence"])  # prose: ok
    assert report.accuracy == pytest.approx(raw("champion.json")["accuracy"])
    predictions = load_predictions(storage, job_dir)
    assert predictions is not None
    assert len(predictions.labels) == len(predictions.classes) == 10_000
