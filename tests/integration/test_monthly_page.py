"""Runs the commands of docs/monthly.md one after another, as a reader would."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.cli import main
from mlengine.core.layout import JobDir
from mlengine.core.verdict import Decision
from mlengine.storage.client import Storage
from mlengine.validation.report import load_report
from tests.support.manual import ROOT, blocks

pytestmark = pytest.mark.integration
PAGE = ROOT / "docs" / "monthly.md"
BUCKET = "$AIRFLOW__MLENGINE__BUCKET"
DAG = "/dags/churn_monthly.py"


@pytest.fixture
def type_line(
    make_backend: Callable[..., LocalBackend],
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """Runs a line of the page in a directory that has the examples, and returns its output."""
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(make_backend().state_dir))
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", bucket)
    monkeypatch.delenv("AIRFLOW__MLENGINE__BACKEND", raising=False)
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path / "clone")

    def run(line: str, code: int = 0) -> str:
        program, *given = shlex.split(line.replace(BUCKET, bucket))
        if program == "python3":
            return subprocess.run([sys.executable, *given], check=True, capture_output=True, text=True).stdout
        assert program == "mlengine"
        ended = main(given)
        out, err = capsys.readouterr()
        assert ended == code, f"{line}: {out[-3000:]}{err[-3000:]}"
        return out + err

    return run


def lines() -> list[str]:
    """The page's command lines that run without Airflow."""
    found = [block.text.replace("\\\n", " ") for block in blocks(PAGE) if block.language == "console"]
    typed = re.findall(r"^\$ (.*)$", "\n".join(found), re.MULTILINE)
    return [line for line in typed if line.split()[0] in {"python3", "mlengine"}]


def test_each_command_does_what_the_page_says(type_line: Callable[..., str], bucket: str, storage: Storage) -> None:
    printed = {line: type_line(line) for line in lines()}
    assert [line.split()[:3] for line in printed if "add" in line] == [["mlengine", "datasets", "add"]] * 3
    job_dir = JobDir.of(bucket, "churn", "churn_1")
    report = load_report(storage, job_dir)
    assert report.verdict.decision is Decision.FIRST
    assert report.model_kind == "sklearn"
    assert report.metrics["roc_auc"] is not None
    assert report.metrics["roc_auc"] > 0.85, "the model must exceed the thresholds of the DAG by a margin"
    (show,) = (text for line, text in printed.items() if "models show" in line)
    assert "churn_1" in show
    # The page's section "The months before": the champion's version is newer than September.
    train, validate = (next(line for line in printed if f" {verb} " in line) for verb in ("train", "validate"))
    type_line(train.replace("churn_1", "churn_2").replace("--dataset churn", "--dataset churn@2026-09-01"))
    type_line(validate.replace("churn_1", "churn_2"), 4)
    assert load_report(storage, JobDir.of(bucket, "churn", "churn_2")).verdict.decision is Decision.NOT_COMPARED


def test_the_dag_runs_the_trainer_of_the_commands() -> None:
    names: dict[str, Any] = {"__name__": "documented", "__file__": f"{ROOT}{DAG}"}
    exec(compile((ROOT / DAG[1:]).read_text(), DAG, "exec"), names)
    tasks = names["retrain"]
    (train,) = (line for line in lines() if " jobs train " in line)
    assert Path(tasks.package.source) == ROOT / re.findall(r"--package-path (\S+)", train)[0]
    assert tasks.submit.job_file["trainingInput"]["pythonModule"] == re.findall(r"--module-name (\S+)", train)[0]
