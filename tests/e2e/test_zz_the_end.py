"""The end of the stack, in the middle of a training: nothing of it is left. The last file, as it ends what the others
use."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
from scripts.follow import job_status, result
from scripts.stack import Stack, living_jobs

from mlengine.core.job import JobState
from mlengine.core.layout import JobDir
from mlengine.testing.airflow_api import AirflowApi, DagRun, TaskRun
from tests.e2e.conftest import MARK, MONTH, Ended

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_nothing_is_left_running(api: AirflowApi, first: Ended, stack: Stack, mark: str) -> None:
    run = api.trigger("mnist_retraining", {"dataset_version": MONTH, "max_steps": 100_000})
    deadline = time.monotonic() + 180
    status = None
    while status is None or status.state is not JobState.RUNNING:
        assert time.monotonic() < deadline, status
        folder = _job_dir(stack, run, api.tasks(run.dag_id, run.run_id))
        status = job_status(stack, folder) if folder else None
        time.sleep(0.5)
    assert _processes(stack.data, mark), "this test would find nothing whatever happens"

    assert stack.stop() == [status.handle.job_id]

    assert _processes(stack.data, mark) == []
    assert living_jobs(stack.backend) == []
    assert stack.backend.describe([status.handle])[0].state is JobState.CANCELLED
    assert not (stack.data / "running.json").exists()


def _job_dir(stack: Stack, run: DagRun, tasks: list[TaskRun]) -> JobDir | None:
    """The job dir that the run is about, as far as its tasks have said it."""
    for task in reversed(tasks):
        value = result(stack, run, task)
        if "job_dir" in value:
            return JobDir(str(value["job_dir"]))
    return None


def _processes(data: Path, mark: str) -> list[str]:
    """Those with the stack's mark in their environment, or at work in its folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and (
                process.environ().get(MARK) == mark or Path(process.cwd()).is_relative_to(data)
            ):
                found.append(f"{process.pid} {process.status()} {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return found
