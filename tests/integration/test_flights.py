"""Tests the flights examples: three replicas train one model and resume after kills, and it is validated by slices.

Uses the commands of docs/own-trainer.md on a few thousand real flights.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from scripts import flights

from mlengine.backends.local.backend import LocalBackend
from mlengine.cli import main
from mlengine.core.job import JobHandle, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.verdict import Decision
from mlengine.storage.client import Storage
from mlengine.testing import faults
from mlengine.testing.gcs import GcsServer
from mlengine.validation.report import load_report
from tests.support import local_jobs
from tests.support.manual import ROOT, blocks, commands, words

pytestmark = pytest.mark.integration
PAGE = ROOT / "docs" / "own-trainer.md"
START_SECONDS, RUN_SECONDS = 500.0, 500.0  # the first includes building an environment with TensorFlow
SLICES = '[{"by": "carrier", "metric": "roc_auc", "min": 0.3}, {"by": "origin", "metric": "roc_auc", "min": 0.5}]'
Command = Callable[..., str]


@pytest.fixture(scope="session")
def flights_table() -> Any:
    return flights.table(flights.files())


@pytest.fixture
def backend(make_backend: Callable[..., LocalBackend]) -> LocalBackend:
    return make_backend()


@pytest.fixture
def mlengine(
    backend: LocalBackend, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs a command in the clone, and returns its output."""
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(backend.state_dir))
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", bucket)
    monkeypatch.delenv("AIRFLOW__MLENGINE__BACKEND", raising=False)
    monkeypatch.setenv("LOGNAME", "anna")
    monkeypatch.chdir(ROOT)

    def run(command: str, *more: str) -> str:
        given, _ = words(command.replace("gs://BUCKET", bucket))
        ended = main([*given, *more])
        out, err = capsys.readouterr()
        assert ended == 0, f"{command}: {out[-3000:]}{err[-3000:]}"
        return out + err

    return run


def documented(title: str) -> list[str]:
    """The mlengine commands below a heading of the page."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    begin = lines.index(f"## {title}")
    end = next(at for at in range(begin + 1, len(lines)) if lines[at].startswith("## "))
    found = [command for block in blocks(PAGE) if begin < block.line <= end for command in commands(block)]
    return [command for command in found if command.startswith("mlengine")]


def replica(backend: LocalBackend, handle: JobHandle, name: str) -> int:
    """The process id of a replica, such as ``worker-1``."""
    for process in local_jobs.alive(backend, handle):
        config = json.loads(psutil.Process(process.pid).environ().get("TF_CONFIG") or "{}")
        task = config.get("task", {})
        if f"{task.get('type')}-{task.get('index')}" == name:
            return process.pid
    raise AssertionError(f"{name} is not running")


def ended(backend: LocalBackend, handle: JobHandle) -> JobStatus | None:
    """The state of a job that has ended; ``None`` while it runs."""
    status = local_jobs.describe(backend, handle)
    return status if status.state.terminal else None


@pytest.mark.parametrize(
    ("title", "kind", "arguments", "killed", "resumed"),
    [
        ("XGBoost on several replicas", "scorer", "--rounds 150", "worker-1", "starting after round "),
        ("A Keras table", "savedmodel", "--max_steps 400 --batch_size 96", "worker-0", "resuming after step "),
    ],
    ids=["xgboost", "keras"],
)
def test_an_example_survives_kills_and_is_published(
    mlengine: Command,
    backend: LocalBackend,
    bucket: str,
    storage: Storage,
    gcs_server: GcsServer,
    monkeypatch: pytest.MonkeyPatch,
    flights_table: Any,
    title: str,
    kind: str,
    arguments: str,
    killed: str,
    resumed: str,
) -> None:
    flights.register(storage, bucket, flights_table, "2013-06-01", rows=1500)
    train, validate, publish = documented(title)
    job_dir = JobDir(train.split("--job-dir ")[1].split()[0].replace("gs://BUCKET", bucket))
    with faults.before(gcs_server.url) as proxy, monkeypatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        if kind == "scorer":
            proxy.strike(faults.stall(RUN_SECONDS), "POST", body=rb"/model/model\.ubj")
        mlengine(f"{train.replace('--stream-logs', '')} -- {arguments}")
        (handle,) = backend.jobs()
        local_jobs.until(lambda: storage.exists(f"{job_dir.uri}/train/progress.json"), "a checkpoint", START_SECONDS)
        os.kill(replica(backend, handle, killed), signal.SIGKILL)
        if kind == "scorer":
            local_jobs.until(lambda: ended(backend, handle) or not proxy.unused, "the upload of the model", RUN_SECONDS)
            os.kill(replica(backend, handle, "master-0"), signal.SIGKILL)
            proxy.release()
        status = local_jobs.until(lambda: ended(backend, handle), "the end of the job", RUN_SECONDS)
    log = "\n".join(local_jobs.texts(backend, handle))
    assert status.state.name == "SUCCEEDED", log[-5000:]
    for rank in range(3):
        assert f"replica {rank} of 3: 2000 of 6000 rows" in log
    assert any(int(part.split()[0]) > 0 for part in log.split(resumed)[1:]), log[-5000:]

    mlengine(validate, "--threshold", f"slices={SLICES}")
    mlengine(publish)
    report = load_report(storage, job_dir)
    assert report.verdict.decision is Decision.FIRST
    assert report.model_kind == kind
    assert report.metrics["roc_auc"] is not None
    assert report.metrics["roc_auc"] > 0.6
    names = {part["name"] for parts in report.slices.values() for part in parts}
    assert {"carrier=UA", "carrier=B6", "origin=EWR", "origin=JFK", "origin=LGA"} <= names
