"""Tests ``make run`` when Airflow cannot be restarted: training jobs continue, also through the next start."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from scripts import console, run
from scripts import stack as stacks
from scripts.stack import Stack

from mlengine.backends import Submission
from mlengine.backends.local.backend import LocalBackend
from mlengine.core.errors import StorageUnavailableError
from mlengine.core.job import JobHandle, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.jobs.progress import read_progress
from mlengine.storage.client import Storage
from mlengine.testing import gcs
from mlengine.testing.airflow import Airflow
from mlengine.testing.airflow_home import AirflowConfig, free_port
from tests.support.idle_trainer import idle_trainer

pytestmark = pytest.mark.integration

LAUNCHER = "mlengine.backends.local.launcher"
LOG = "sqlite3.OperationalError: database is locked"


@dataclass
class Training:
    """A stack without Airflow's processes, and a job that trains until a file exists."""

    stack: Stack
    handle: JobHandle
    end_file: Path

    @property
    def state(self) -> JobState:
        return self.stack.backend.describe([self.handle])[0].state

    @property
    def root(self) -> Path:
        return self.stack.data / "local" / "jobs" / self.handle.name.rpartition(":")[2]

    @property
    def step(self) -> int:
        progress = read_progress(self.stack.storage, JobDir(self.handle.job_dir))
        return -1 if progress is None else progress.step


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Training]:
    monkeypatch.setattr(stacks, "DATA", tmp_path)
    handlers = {number: signal.getsignal(number) for number in stacks.STOP_SIGNALS}
    server = gcs.start(tmp_path / "gcs", port=free_port())
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    storage = Storage()
    storage.client.create_bucket(stacks.BUCKET)
    package = f"gs://{stacks.BUCKET}/packages/idle_trainer/1/idle_trainer.tar.gz"
    storage.write(package, idle_trainer())
    end_file = tmp_path / "end"
    spec = TrainingSpec(
        module="idle_trainer", args=("--until", str(end_file)), package_uris=(package,), pools=(Pool(Role.CHIEF, 1),)
    )
    backend = LocalBackend(tmp_path / "local")
    handle = backend.submit(Submission("k1", "job_1", 1, f"gs://{stacks.BUCKET}/m/job_1", spec))
    airflow = Airflow(AirflowConfig(home=tmp_path / "airflow", dags=tmp_path), port=free_port(), password="secret")
    stack = Stack(tmp_path, server, airflow, dict(os.environ))
    training = Training(stack, handle, end_file)
    try:
        until(lambda: training.state is JobState.RUNNING)
        yield training
    finally:
        backend.cancel(handle)
        until(lambda: training.state.terminal)
        stack.server.stop()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def fail(airflow: Airflow, name: str) -> None:
    """Make a component fail as if all its restarts were used up."""
    airflow.supervise()
    log = airflow.log_file(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"many lines before\n{LOG}\n")
    airflow.failed[name] = 1


def test_a_failed_airflow_leaves_its_jobs_running(
    training: Training, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = training.stack
    fail(stack.airflow, "triggerer")
    monkeypatch.setattr(stacks, "start", lambda data, load: stack)
    assert run.main(["--no-train"]) == 1
    printed = capsys.readouterr().out
    assert "job job_1 continues" in printed
    assert "make run again" in printed
    assert f"triggerer ended with code 1 after 5 restarts in 10 minutes:\nmany lines before\n{LOG}" in printed
    assert training.state is JobState.RUNNING
    assert gcs.answers(stack.server.url), "the storage server must keep running for the job"

    # The next start replaces the server and does not affect the job.
    reached = training.step
    until(lambda: training.step > reached)
    with stacks.Lock(stack.data):
        assert not gcs.answers(stack.server.url)
        port = int(stack.server.url.rsplit(":", 1)[1])
        again = replace(stack, server=gcs.start(stack.data / "gcs", port=port))
        try:
            reached = training.step
            until(lambda: training.step > reached)
            training.end_file.write_text("0")
            until(lambda: training.state is JobState.SUCCEEDED)
        finally:
            again.server.stop()


def test_a_storage_server_that_ends_is_started_again(
    training: Training, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After the OOM killer has ended it, for example."""
    stack = training.stack
    url = stack.server.url
    for number in range(2):
        stack.server.process.kill()
        stack.server.process.wait()
        stack.check()
        assert caplog.messages[number].startswith("the Cloud Storage server ended with code -9, and was started again")
    assert stack.server.url == url
    assert stack.storage.client.lookup_bucket(stacks.BUCKET) is not None, "the objects must be kept"
    running = (stack.data / "running.json").read_text()
    assert f'"{stack.server.process.pid}"' in running, "the next stack must find it if this one is killed"
    stack.server.process.kill()
    stack.server.process.wait()
    monkeypatch.setattr("mlengine.testing.restart_limit.MAX_RESTARTS", 2)
    with pytest.raises(StorageUnavailableError, match=r"ended with code -9 after 5 restarts in 10 minutes"):
        stack.check()
    stack.server = gcs.start(stack.server.root, port=int(url.rpartition(":")[2]))


def test_without_a_job_everything_is_stopped(training: Training) -> None:
    training.end_file.write_text("0")
    until(lambda: training.state is JobState.SUCCEEDED)
    fail(training.stack.airflow, "scheduler")
    assert training.stack.stop_without_jobs() == []
    assert not gcs.answers(training.stack.server.url)
    assert not (training.stack.data / "running.json").exists()


def test_ctrl_c_cancels_the_jobs(
    training: Training, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Any) -> None:
        raise run.InterruptedRunError

    monkeypatch.setattr(stacks, "start", lambda data, load: training.stack)
    monkeypatch.setattr(run, "_stay", interrupted)
    assert run.main(["--no-train"]) == 0
    assert "job job_1 had not ended: cancelled" in capsys.readouterr().out
    assert training.state is JobState.CANCELLED


def test_the_storage_server_stops_only_after_the_cleanup_process(training: Training) -> None:
    """Otherwise that process, which calls the server, would be left running until its retries have failed."""
    folder = training.stack.airflow.config.home / "mlengine" / "orphans" / "environment"
    folder.mkdir(parents=True)
    answered = []
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the process does while it handles requests

        def handle() -> None:
            until(lambda: training.state is JobState.CANCELLED)
            time.sleep(1.0)
            answered.append(gcs.answers(training.stack.server.url))
            fcntl.flock(lock, fcntl.LOCK_UN)

        with ThreadPoolExecutor(1) as pool:
            handling = pool.submit(handle)
            training.stack.stop()
            handling.result()
    assert answered == [True]
    assert not gcs.answers(training.stack.server.url)


def test_a_stop_says_what_it_waits_for_and_what_has_not_ended(
    training: Training, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A launcher that does not respond, and a cleanup process that is stopped."""
    monkeypatch.setattr(stacks, "_CANCEL_SECONDS", 1.5)
    monkeypatch.setattr(stacks, "_CLEANUP_SECONDS", 1.5)
    monkeypatch.setattr(stacks, "_NOTE_SECONDS", 0.2)
    monkeypatch.setattr(console, "_STATUS_SECONDS", 0.0)
    monkeypatch.setattr("mlengine.testing.airflow_api.AirflowApi.live_runs", lambda _: [])
    folder = training.stack.airflow.config.home / "mlengine" / "orphans" / "environment"
    folder.mkdir(parents=True)
    known = psutil.process_iter(["cmdline"])
    launcher = next(it for it in known if (it.info["cmdline"] or [])[3:5] == [LAUNCHER, str(training.root)])
    launcher.suspend()
    began = time.monotonic()
    try:
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert training.stack.stop(console.Console()) == [], "the job has not ended"
    finally:
        launcher.resume()
        until(lambda: training.state.terminal)
        launcher.kill()  # it would try to upload the logs
    printed = capsys.readouterr().out
    assert "  … waiting at most 1 s for the process that cancels the jobs of ended runs\n" in printed
    assert "  ! not ended in 2 s: the process that cancels the jobs of ended runs; see " in printed
    assert "  … waiting at most 1 s for job job_1: CANCELLING, 1 of 1 replica running\n" in printed
    assert "  ! not ended in 2 s: job job_1: CANCELLING, 1 of 1 replica running; see " in printed
    assert time.monotonic() - began < 10, "a stop must not wait twice for one process"
