"""Follow a DAG run on the terminal: a line for each task that ends, and the training's progress as the status line."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from scripts.console import Console
from scripts.stack import Stack

from mlengine.core.errors import MlengineError
from mlengine.core.job import JobRecord, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.jobs.progress import read_progress
from mlengine.testing.airflow_api import DagRun, TaskRun

_MARKS = {"success": "✓", "failed": "✗", "upstream_failed": "✗", "skipped": "-", "up_for_retry": "↻"}
_QUIET = frozenset({None, "scheduled", "queued", "running", "deferred", "upstream_failed"})


class Follower:
    """Polls a DAG run and prints changes."""

    def __init__(self, stack: Stack, console: Console) -> None:
        self.stack = stack
        self.console = console
        self.job_dir: JobDir | None = None
        self.reused = False
        self._printed: dict[tuple[str, int], tuple[str | None, int]] = {}
        self._states: set[str] = set()
        self._polled_at = float("-inf")

    def follow(self, run: DagRun) -> DagRun:
        """Follow the run until it has ended, however long its training takes.

        :raises MlengineError: a component has failed.
        """
        return self.stack.airflow.api.wait(run, math.inf, self._on_poll, check=self.stack.check, every=_pause)

    def _on_poll(self, run: DagRun, tasks: list[TaskRun]) -> None:
        for task in tasks:
            key, now = (task.task_id, task.map_index), (task.state, task.try_number)
            if self._printed.get(key) != now and task.state not in _QUIET:
                returned = result(self.stack, run, task)
                self.console.say(_task_line(task))
                self._note_job(returned)
            self._printed[key] = now
        busy = [task.task_id for task in tasks if task.state in {"running", "deferred"}]
        self.console.note(f"    … {', '.join(busy) or run.state}{self._training()}")

    def _note_job(self, value: Mapping[str, Any]) -> None:
        """Record the run's job dir. Later tasks override it, because a reused job has the dir of another run."""
        if "job_dir" in value:
            self.job_dir = JobDir(str(value["job_dir"]))
        if "decision" in value and not self.reused:  # the wait's result repeats that the job is reused
            self.console.say(f"      {value['decision']}: job {value.get('job_id')}")
        self.reused = self.reused or value.get("decision") == "reused"

    def _training(self) -> str:
        """The job's progress, as reported by its launcher and its trainer."""
        if self.job_dir is None or time.monotonic() - self._polled_at < 1.0:
            return ""
        self._polled_at = time.monotonic()
        status = job_status(self.stack, self.job_dir)
        if status is None or status.state.terminal:
            return ""
        if status.state.value not in self._states:
            self._states.add(status.state.value)
            self.console.say(f"      {job_line(status)}")
        progress = read_progress(self.stack.storage, self.job_dir)
        if status.state is JobState.RUNNING and progress is not None:
            return f": {progress}"
        return f": {status.detail or status.state.value}"


def _pause(tasks: list[TaskRun]) -> float:
    """Seconds until the next poll. Polls are less frequent while a job trains, because they take CPU time from it."""
    return 2.0 if any(task.state == "deferred" for task in tasks) else 0.5


def result(stack: Stack, run: DagRun, task: TaskRun) -> Mapping[str, Any]:
    """The result of a successful task; empty if it is not a mapping."""
    if task.state != "success":
        return {}
    value = stack.airflow.api.xcoms(run.dag_id, run.run_id, task.task_id, task.map_index).get("return_value")
    return value if isinstance(value, Mapping) else {}


def job_status(stack: Stack, job_dir: JobDir) -> JobStatus | None:
    """The status of the current attempt; ``None`` before there is one."""
    try:
        record = JobRecord.from_bytes(stack.storage.read(job_dir.claim))
    except MlengineError:
        return None
    handle = record.handle(job_dir.uri)
    return None if handle is None else stack.backend.describe([handle])[0]


def failures(stack: Stack, run: DagRun) -> list[str]:
    """The last log lines of each task that failed."""
    lines: list[str] = []
    for task in stack.airflow.api.tasks(run.dag_id, run.run_id):
        if task.state == "failed":
            log = stack.airflow.api.log(run.dag_id, run.run_id, task.task_id, task.try_number, task.map_index)
            lines += [f"{task.task_id}, try {task.try_number}:", *(f"    {line}" for line in _last(log))]
    return lines


def _last(log: list[str]) -> list[str]:
    return [line for line in log if not line.startswith("::") and line.strip()][-12:]


def _task_line(task: TaskRun) -> str:
    duration = f"{task.duration:8.1f} s" if task.duration else ""
    name = task.task_id + (f" [{task.map_index}]" if task.map_index >= 0 else "")
    again = f"  (try {task.try_number})" if task.try_number > 1 else ""
    return f"    {_MARKS.get(str(task.state), ' ')} {name:<32} {task.state!s:<12}{duration}{again}"


def job_line(status: JobStatus) -> str:
    """The line for a job that has entered this state."""
    why = ""
    if status.state is JobState.PREPARING:
        why = "the trainer's environment is built once, and kept until its requirements change"
    elif status.state is JobState.QUEUED:
        why = status.detail
    return f"job {status.handle.job_id}: {status.state.value}" + (f"; {why}" if why else "")
