"""The examples of docs/own-trainer.md, as a newcomer runs them: ``mlengine train``, then validation."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripts import mnist

from mlengine.backends.local.backend import LocalBackend
from mlengine.cli import main
from mlengine.core.verdict import Decision, Thresholds
from mlengine.storage.client import Storage
from mlengine.validation.signature import Expectation
from tests.integration.gate_lab import RULES, Lab

pytestmark = pytest.mark.integration
EXAMPLES = Path(__file__).parents[2] / "examples"
PAGE = Path(__file__).parents[2] / "docs" / "own-trainer.md"
Say = pytest.CaptureFixture[str]


@pytest.fixture
def here(make_backend: Callable[..., LocalBackend], bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A terminal in the examples' folder, with a bucket and a local backend."""
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(make_backend().state_dir))
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", bucket)
    monkeypatch.delenv("AIRFLOW__MLENGINE__BACKEND", raising=False)
    monkeypatch.chdir(EXAMPLES)
    return bucket


def test_a_script_with_a_dataset(here: str, storage: Storage, digits: Path, capsys: Say) -> None:
    for version in ("2026-10-01", "2026-11-01"):
        mnist.register(storage, here, digits, version, train=2_000, heldout=1_000)
    command = ["train", "count_1", "--package-path", "script/report", "--config", "script/job.yaml"]
    assert main([*command, "--dataset", "mnist", "--stream-logs"]) == 0
    assert "master: 2000 rows of 10 classes" in capsys.readouterr().out
    assert sum(json.loads(storage.read(f"{here}/jobs/count_1/model/counts.json"))) == 2000
    dataset = json.loads(storage.read(f"{here}/jobs/count_1/job.json"))["inputs"]["dataset"]
    assert (dataset["dataset"], dataset["version"], dataset["rows"]) == ("mnist", "2026-11-01", 2000)
    uri = f"{here}/datasets/mnist/2026-10-01"
    for given in ("mnist@2026-10-01", uri):
        assert main([*command, "--dataset", given, "--dry-run"]) == 0
        assert f"- {uri}" in capsys.readouterr().out
    assert main([*command, "--dataset", "mnist@2026-12-01"]) == 1
    assert "2026-11-01" in capsys.readouterr().err, "the versions that exist"
    assert main([*command, "--dataset", f"{here}/mnist"]) == 1
    assert "write gs://…/datasets/NAME/VERSION" in capsys.readouterr().err


def test_a_table_with_scikit_learn(here: str, storage: Storage, capsys: Say) -> None:
    rows = [f"{plan},{months},{'yes' if months < 12 else 'no'}" for months in range(24) for plan in ("basic", "family")]
    storage.write(f"{here}/tables/churn.csv", "\n".join(["plan,months,churned", *rows]).encode())
    command = ["train", "churn_1", "--package-path", "sklearn_table", "--module-name", "table.task", "--stream-logs"]
    table = ["--", "--table", f"{here}/tables/churn.csv", "--target", "churned"]
    assert main([*command, *table]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert storage.exists(f"{here}/jobs/churn_1/model/model.pickle")
    assert json.loads(storage.read(f"{here}/jobs/churn_1/model/metrics.json"))["accuracy"] > 0.7


def documented_signature() -> Expectation:
    """The serving signature that the page shows for the Keras example."""
    block = PAGE.read_text().split("serving_signature=", 1)[1]
    end = block.index("},\n        # ")
    fields: dict[str, Any] = eval(block[: end + 1].replace("\n        ", "\n"), {"None": None})
    return Expectation.from_json(fields)


def test_a_keras_model_is_validated_by_the_documented_signature(lab: Lab, digits: Path, tmp_path: Path) -> None:
    data = mnist.subset(digits, tmp_path, train=6_000, heldout=10)
    with lab.place.python() as python:
        done = subprocess.run(
            [python, "-m", "digits.task", "--dataset", str(data), "--job-dir", str(tmp_path / "job"), "--epochs", "3"],
            cwd=EXAMPLES / "keras_digits",
            env={**os.environ, "KERAS_HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "2"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    (lab.models / "keras_digits").symlink_to(tmp_path / "job" / "model")
    rules = replace(RULES, expected=documented_signature(), thresholds=Thresholds(accuracy=0.85, per_class=0.6))
    report = lab.judge("keras_digits", rules)
    assert report.verdict.decision is Decision.FIRST, report.verdict.reasons
    assert report.accuracy is not None
    assert report.accuracy > 0.85
