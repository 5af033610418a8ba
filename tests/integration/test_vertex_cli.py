"""Tests the commands for jobs on Vertex AI as a user types them: ``status``, ``logs``, ``cancel``, ``reap``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.cli import main
from mlengine.core.job import JobKey, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.jobs.submission import Intent, Submitter
from mlengine.storage.client import Storage
from mlengine.testing.emulator import RunningEmulator, running
from tests.integration.test_vertex_backend import LONG, submission, wait
from tests.support.airflow_stub import AirflowStub

pytestmark = pytest.mark.integration
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def service(
    make_backend: Callable[..., LocalBackend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningEmulator]:
    with running(tmp_path / "emulator", backend=make_backend()) as started:
        for name, value in started.env.items():
            monkeypatch.setenv(name, value)
        yield started


@pytest.fixture
def mlengine(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str) -> tuple[int, str, str]:
        code = main([*words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_jobs_can_be_shown_followed_and_cancelled(
    mlengine: Command, service: RunningEmulator, actor: str, bucket: str
) -> None:
    vertex = ("--backend", "vertex")
    assert mlengine("jobs", "list", *vertex)[1] == "no jobs in the backend vertex\n"
    backend = VertexBackend(**service.settings)
    first = backend.submit(submission(actor, bucket, "--chief", "say('one')"))
    assert wait(backend, first).state is JobState.SUCCEEDED
    second = backend.submit(submission(actor, bucket, "--chief", LONG, attempt=2))
    wait(backend, second, JobState.RUNNING)
    lines = mlengine("jobs", "list", *vertex)[1].splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["RUNNING", "SUCCEEDED"]
    assert "attempt 2" in lines[1]
    shown = json.loads(mlengine("jobs", "status", "mnist_1", "--json", *vertex)[1])
    assert (shown["name"], shown["attempt"]) == (second.name, 2)
    assert f"name:       {first.name}" in mlengine("jobs", "status", first.name, *vertex)[1]
    assert "chief-0     | one" in mlengine("jobs", "logs", "mnist_1", "--attempt", "1", "--follow", *vertex)[1]
    assert mlengine("jobs", "cancel", second.name, *vertex)[1] == "mnist_1: CANCELLED\n"
    assert mlengine("jobs", "cancel", "mnist_1", *vertex)[1] == "mnist_1 has already ended: CANCELLED\n"
    code, _, err = mlengine("jobs", "status", "mnist_1", "--region", "europe-west4", *vertex)
    assert code == 1
    assert "no job 'mnist_1' in the backend vertex in europe-west4" in err


def test_reap_searches_the_regions_of_the_claims(
    mlengine: Command,
    service: RunningEmulator,
    airflow_stub: AirflowStub,
    actor: str,
    bucket: str,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One job runs in its job file's region and its name was never recorded; the other has no region."""
    monkeypatch.delenv("AIRFLOW__MLENGINE__VERTEX_REGION")
    monkeypatch.setenv("AIRFLOW__MLENGINE__BACKEND", "vertex")
    spec = TrainingSpec("tiny.task", (actor,), ("--chief", LONG), pools=(Pool(Role.CHIEF, 1, "n1-standard-4"),))
    regions = {"named": "europe-west4", "set": None}
    backend = VertexBackend(**service.settings)
    for run_id, region in regions.items():
        key = JobKey("dag", run_id, "submit", -1, 2)
        intent = Intent(key, "m", JobDir.of(bucket, "m", f"job_{run_id}"), replace(spec, region=region))
        Submitter(storage, backend).submit(intent)
        claim = json.loads(storage.read(intent.job_dir.claim))
        storage.write(intent.job_dir.claim, json.dumps({**claim, "name": None}).encode())
    airflow_stub.runs, airflow_stub.tasks = dict.fromkeys(regions, "failed"), {run_id: [] for run_id in regions}
    code, out, err = mlengine("jobs", "reap", "--bucket", bucket, "--region", "us-central1", "--yes")
    assert code == 0, err
    assert "requested the cancellation of 2 active jobs" in out
    assert service.calls.count("CancelCustomJob") == 2
