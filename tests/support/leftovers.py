"""Stops a stack in the middle of a training job and checks that no process, job or file of it is left."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import psutil
from scripts.follow import job_status, result
from scripts.stack import Stack, living_jobs

from mlengine.core.job import JobHandle, JobState
from mlengine.core.layout import JobDir
from mlengine.testing.airflow_api import DagRun

MARK = "MLENGINE_E2E"  # an environment variable of all processes that a stack starts
_START_SECONDS = 600.0
_EXIT_SECONDS = 30.0


def check_stop(stack: Stack, mark: str, conf: dict[str, Any]) -> None:
    """Stop the stack while a run of ``mnist_retraining`` with this configuration is training.

    If that DAG has not run before, the stack is stopped without such a run, as the trainer's environment would have to
    be built first.

    :param mark: the value of :data:`MARK` in the environment of the stack's processes.
    :raises AssertionError: something is still running, or is recorded as running.
    """
    api = stack.airflow.api
    handles = []
    if api.runs("mnist_retraining"):
        handles = [_train(stack, api.trigger("mnist_retraining", conf))]
    assert left_running(stack.data, mark), "no process of a running stack was found: this check cannot fail"
    stopped = stack.stop()
    assert {handle.job_id for handle in handles} <= set(stopped)
    assert still_running(stack.data, mark) == []
    assert living_jobs(stack.backend) == []
    assert [status.state for status in stack.backend.describe(handles)] == [JobState.CANCELLED] * len(handles)
    assert not (stack.data / "running.json").exists()


def _train(stack: Stack, run: DagRun) -> JobHandle:
    """Wait until the run's job is running."""
    deadline = time.monotonic() + _START_SECONDS
    status = None
    while status is None or status.state is not JobState.RUNNING:
        assert time.monotonic() < deadline, status
        job_dir = _job_dir(stack, run)
        status = job_status(stack, job_dir) if job_dir else None
        time.sleep(0.5)
    return status.handle


def _job_dir(stack: Stack, run: DagRun) -> JobDir | None:
    """The run's job dir, once a task has returned it."""
    for task in reversed(stack.airflow.api.tasks(run.dag_id, run.run_id)):
        value = result(stack, run, task)
        if "job_dir" in value:
            return JobDir(str(value["job_dir"]))
    return None


def left_running(folder: Path, mark: str) -> list[str]:
    """Processes that have the mark in their environment, or whose working directory is in the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and (
                process.environ().get(MARK) == mark or Path(process.cwd()).is_relative_to(folder)
            ):
                found.append(f"{process.pid} {process.status()} {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return found


def still_running(folder: Path, mark: str) -> list[str]:
    """The result of :func:`left_running` once it is empty, or after 30 s: on a busy machine, an exit takes a while."""
    deadline = time.monotonic() + _EXIT_SECONDS
    while (found := left_running(folder, mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found
