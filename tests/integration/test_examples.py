"""Tests the examples of docs/own-trainer.md with the commands and DAGs of the page."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import TaskGroup
from scripts import mnist

from mlengine.backends.local.backend import LocalBackend
from mlengine.cli import main
from mlengine.core.layout import JobDir
from mlengine.core.thresholds import Thresholds
from mlengine.core.verdict import Decision
from mlengine.storage.client import Storage
from mlengine.validation.environment import ValidationEnvironment
from mlengine.validation.job import load_job
from mlengine.validation.report import Report, load_report
from mlengine.validation.rules import Rules, Scope
from mlengine.validation.validation import validate
from tests.support.manual import ROOT, blocks, commands, words

pytestmark = pytest.mark.integration
PAGE = ROOT / "docs" / "own-trainer.md"
Command = Callable[..., str]


def section(title: str) -> Iterator[Any]:
    """The code blocks below a heading of the page."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    begin = lines.index(f"## {title}")
    end = next((at for at in range(begin + 1, len(lines)) if lines[at].startswith("## ")), len(lines))
    return (block for block in blocks(PAGE) if begin < block.line <= end)


def documented_commands(title: str) -> list[str]:
    return [command for block in section(title) for command in commands(block)]


def documented_group(title: str) -> tuple[TaskGroup, dict[str, Any]]:
    """The task group of a section's DAG, and the other names of its block."""
    block = next(block for block in section(title) if block.run and "RetrainingTaskGroup(" in block.text)
    names: dict[str, Any] = {"__name__": "documented"}
    exec(compile(block.text, block.place, "exec"), names)
    return names["retrain"], names


@pytest.fixture
def mlengine(
    make_backend: Callable[..., LocalBackend], bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Command:
    """Runs a command in the clone, as a new user would, and returns its output."""
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(make_backend().state_dir))
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", bucket)
    monkeypatch.delenv("AIRFLOW__MLENGINE__BACKEND", raising=False)
    monkeypatch.setenv("LOGNAME", "anna")
    monkeypatch.chdir(ROOT)

    def run(command: str, code: int = 0) -> str:
        given, _ = words(command.replace("gs://BUCKET", bucket))
        ended = main(given)
        out, err = capsys.readouterr()
        assert ended == code, f"{command}: {out[-3000:]}{err[-3000:]}"
        return str(out + err)

    return run


@pytest.mark.parametrize("example", ["keras_digits", "sklearn_table", "script"])
def test_an_example_is_short(example: str) -> None:
    modules = (ROOT / "examples" / example).glob("*/*.py")
    assert 0 < sum(len(path.read_text().splitlines()) for path in modules) < 80


@pytest.mark.parametrize("title", ["A Keras model", "A script"])
def test_the_page_shows_the_job_file(title: str) -> None:
    shown = next(block for block in section(title) if block.language == "yaml")
    example = next(re.finditer(r"--config (\S+)", "\n".join(documented_commands(title))))[1]
    assert shown.text == (ROOT / example).read_text()


def test_a_script_trains_with_a_dataset(mlengine: Command, bucket: str, storage: Storage, digits: Path) -> None:
    for version in ("2026-10-01", "2026-11-01"):
        manifest = mnist.register(storage, bucket, digits, version, train=2_000, heldout=1_000)
    train, *rest = documented_commands("A script")
    assert "master: 2000 rows of 10 classes" in mlengine(train)
    job_dir = JobDir.of(bucket, "counts", "counts_1")
    assert sum(json.loads(storage.read(f"{job_dir.model}counts.json"))) == 2000
    # Validation uses the version that the job recorded.
    assert load_job(storage, job_dir.uri).dataset == {
        "dataset": "mnist",
        "name": "mnist",
        "version": "2026-11-01",
        "uri": f"{bucket}/datasets/mnist/2026-11-01",
        "digest": manifest.digest,
        "rows": 2000,
    }
    for command in rest:
        mlengine(command)
    assert load_report(storage, job_dir).verdict.decision is Decision.FIRST


def test_a_dataset_is_a_name_a_version_or_a_uri(mlengine: Command, bucket: str, storage: Storage, digits: Path) -> None:
    for version in ("2026-10-01", "2026-11-01"):
        mnist.register(storage, bucket, digits, version, train=2_000, heldout=1_000)
    train = documented_commands("A script")[0].replace("--stream-logs", "--dry-run")
    uri = f"{bucket}/datasets/mnist"
    for given, version in (
        ("mnist", "2026-11-01"),
        ("mnist@2026-10-01", "2026-10-01"),
        (f"{uri}/2026-10-01", "2026-10-01"),
        (f"{uri}/2026-10-01/", "2026-10-01"),
    ):
        assert f"- --dataset\n  - {uri}/{version}\n" in mlengine(train.replace("mnist ", f"{given} "))
    for given, message in (
        ("mnist@2026-12-01", "versions: 2026-10-01, 2026-11-01"),
        ("mnist@", "invalid dataset version: ''"),
        ("fashion", "dataset 'fashion' has no version"),
        (f"{bucket}/mnist", "write gs://BUCKET/datasets/NAME/VERSION"),
        ("gs://datasets/mnist/2026-10-01", "write gs://BUCKET/datasets/NAME/VERSION"),
    ):
        assert message in mlengine(train.replace("mnist ", f"{given} "), code=1)


def test_a_scikit_learn_model_of_a_table_is_validated(
    mlengine: Command, bucket: str, storage: Storage, tmp_path: Path
) -> None:
    upload_table(bucket, tmp_path)
    train, *rest = documented_commands("A table and scikit-learn")
    assert "accuracy" in mlengine(train)
    job_dir = JobDir.of(bucket, "churn_table", "churn_table_1")
    assert storage.exists(f"{job_dir.model}model.pickle")
    for command in rest:
        mlengine(command)
    report = load_report(storage, job_dir)
    assert report.verdict.decision is Decision.FIRST
    # The DAG's extra check reads the metrics that the trainer wrote.
    group, names = documented_group("A table and scikit-learn")
    assert group.validate.extra_checks == [names["accurate"]]  # type: ignore[attr-defined]
    assert validate_with(storage, job_dir, names["accurate"]).verdict.decision is Decision.ACCEPTED
    storage.write(f"{job_dir.model}metrics.json", b'{"accuracy": 0.5}')
    worse = validate_with(storage, job_dir, names["accurate"])
    assert worse.verdict.reasons == ("Cross-validation gives an accuracy of 0.500.",)


def upload_table(bucket: str, folder: Path) -> None:
    """Create and upload the table by the commands of the page."""
    text = "".join(block.text for block in section("A table and scikit-learn") if block.language == "console")
    typed = re.findall(r"^\$ (python.*)$", text.replace("\\\n", ""), re.MULTILINE)
    assert len(typed) == 2
    for line in typed:
        _, *given = shlex.split(line.replace("gs://BUCKET", bucket))
        script = [str(ROOT / word) if word.startswith("examples/") else word for word in given]
        subprocess.run([sys.executable, *script], check=True, cwd=folder, capture_output=True)


def validate_with(storage: Storage, job_dir: JobDir, check: Any) -> Report:
    rules = Rules(scope=Scope.FILES, extra_checks=(check,), require_comparison=False)
    nowhere: Any = None  # not used, as nothing of the model runs
    return validate(
        storage, load_job(storage, job_dir.uri), rules, ValidationEnvironment(nowhere, nowhere), replace_report=True
    )


def test_a_keras_model_is_validated_and_published(
    mlengine: Command, bucket: str, storage: Storage, digits: Path
) -> None:
    mnist.register(storage, bucket, digits, "2026-11-01", train=20_000)
    for command in documented_commands("A Keras model"):
        mlengine(command)
    report = load_report(storage, JobDir.of(bucket, "digits", "digits_1"))
    assert report.verdict.decision is Decision.FIRST
    assert report.metric_value is not None
    assert report.metric_value > 0.9
    assert "digits_1" in mlengine("mlengine models show digits")
    # The DAG uses the model in the same way as the commands.
    group, _ = documented_group("A Keras model")
    signature = json.loads((ROOT / "examples/keras_digits/serving_signature.json").read_text())
    assert group.validate.serving_signature == signature  # type: ignore[attr-defined]
    assert report.thresholds == Thresholds.from_json(group.validate.thresholds)  # type: ignore[attr-defined]
