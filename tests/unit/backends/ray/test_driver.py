"""The driver: from the submission in the bucket to the final state there."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from mlengine.backends import Submission
from mlengine.backends.ray import driver as module
from mlengine.backends.ray.driver import Driver
from mlengine.backends.ray.record import Stored, folder, state_uri
from mlengine.backends.ray.settings import RaySettings
from mlengine.core.job import JobState
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.storage.client import Storage
from tests.support.scripted_actors import RUNS, ScriptedCluster

JOB_DIR = "gs://bucket/m/job"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlengine.backends.ray.journal._SHORTEST_SECONDS", 0.01)


class Bucket:
    """A bucket in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def write(self, uri: str, data: bytes, _: str | None = None) -> int:
        self.objects[uri] = data
        return 1

    def ls(self, _: str) -> list[Any]:
        return []


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(monkeypatch: pytest.MonkeyPatch, *script: Any, stop: bool = False, **limits: Any) -> tuple[JobState, Bucket]:
    """Run a job with only a chief, whose starts end as ``script`` specifies."""
    cluster = ScriptedCluster({"chief-0": list(script)})
    monkeypatch.setattr(module, "Cluster", lambda *_: cluster)
    spec = TrainingSpec("t", ("gs://bucket/t.tar.gz",), pools=(Pool(Role.CHIEF, 1),), **limits)
    stored = Stored(Submission("k", "job", 2, JOB_DIR, spec), RaySettings.load(restart_backoff_seconds=0))
    bucket = Bucket()
    driver = Driver(stored, cast(Storage, bucket))
    if stop:
        threading.Timer(0.2, signal.raise_signal, (signal.SIGTERM,)).start()
    state = driver.run()
    assert sorted(cluster.created) == sorted(cluster.killed)
    return state, bucket


def written(bucket: Bucket) -> dict[str, Any]:
    handle = Stored(Submission("k", "job", 2, JOB_DIR, TrainingSpec("t")), RaySettings.load()).handle
    found: dict[str, Any] = json.loads(bucket.objects[state_uri(folder(handle))])
    return found


def test_the_driver_of_a_successful_job_writes_its_final_state(monkeypatch: pytest.MonkeyPatch) -> None:
    state, bucket = run(monkeypatch, 0)
    assert state is JobState.SUCCEEDED
    last = written(bucket)
    assert last["state"] == "SUCCEEDED"
    assert last["created"] <= last["started"] <= last["ended"]
    assert "wrote nothing below model/ or train/" in last["detail"]
    assert bucket.objects[f"{JOB_DIR}/logs/environment.txt"] == b"a==1\n"
    assert bucket.objects[f"{JOB_DIR}/logs/attempt-2/chief-0.log"] == b"chief-0 says 0\n"
    assert b"SUCCEEDED: " in bucket.objects[f"{JOB_DIR}/logs/attempt-2/launcher.log"]


def test_the_driver_of_a_failed_job_exits_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    state, bucket = run(monkeypatch, 3)
    assert state is JobState.FAILED
    assert written(bucket)["failure"] == {
        "cause": "trainer",
        "message": "chief-0 ended with an error, exit code 3",
        "replica": "chief-0",
        "exit_code": 3,
        "log_tail": ["chief-0 says 3"],
    }


def test_sigterm_cancels_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    state, bucket = run(monkeypatch, RUNS, stop=True)
    assert state is JobState.CANCELLED
    assert written(bucket)["failure"]["cause"] == "cancelled"


def test_a_job_that_runs_too_long_exceeds_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    state, bucket = run(monkeypatch, RUNS, max_running_seconds=1)
    assert state is JobState.FAILED
    assert written(bucket)["failure"]["cause"] == "deadline"


def test_an_error_of_the_driver_is_a_failure_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedCluster, "connect", lambda _: 1 / 0)
    state, bucket = run(monkeypatch, 0)
    assert state is JobState.FAILED
    assert written(bucket)["failure"]["cause"] == "service"
    assert "ZeroDivisionError" in written(bucket)["detail"]
