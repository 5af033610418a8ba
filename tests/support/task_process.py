"""Runs a task in a separate process that kills itself with SIGKILL just before its n-th side effect.

A side effect is a write to the bucket, or a step of the local backend that others can observe. Between two side effects
a task only reads: being killed right before one is equivalent to being killed right after the previous one.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from airflow.sdk.exceptions import TaskDeferred

from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.vertex.client import RestClient
from mlengine.core.xcoms import JobXCom
from mlengine.operators.package import PackageTrainerOperator
from mlengine.operators.prepare import PrepareJobDirOperator
from mlengine.operators.publish import PublishModelOperator
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.operators.validate import ValidateModelOperator
from mlengine.sensors.training_job import TrainingJobSensor
from mlengine.storage.client import Storage
from mlengine.triggers import training_job
from mlengine.triggers.training_job import TrainingJobTrigger

NEVER = 10_000
_TURN = threading.Lock()


@dataclass(frozen=True)
class TaskProcess:
    """One try of a task.

    :param mode: ``package``: package ``source``; ``submit``: prepare and submit a job; ``poke`` or ``deferrable``: wait
        for ``job``; ``validate`` and ``publish``: validate or publish its model.
    :param kill_before: the number of the side effect, counted from 1.
    :param report: the file that records each side effect before it happens, and finally the result.
    """

    mode: str
    run_id: str
    bucket: str
    options: Mapping[str, Any]
    job_file: Mapping[str, Any]
    env: Mapping[str, str]
    report: Path
    source: str = ""
    job: Mapping[str, Any] | None = None
    kill_before: int = NEVER
    try_number: int = 1
    backend: str = "local"


def process(task: TaskProcess) -> int | None:
    """Run the task in a separate process, and return its exit code."""
    context = multiprocessing.get_context("forkserver")
    # The fork server imports Airflow's SDK and the clients only once.
    context.set_forkserver_preload(["tests.support.task_process", "google.cloud.storage"])
    process = context.Process(target=run_task, args=(task,))
    # Starting a process also polls all other children, and if two threads wait for one process, only one gets its exit
    # code.
    with _TURN:
        process.start()
    connection.wait([process.sentinel], 180)
    with _TURN:
        process.join(0)
    return process.exitcode


def report_of(task: TaskProcess) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The side effects of a finished task, and its result; ``{}`` if the task was killed."""
    lines = [json.loads(line) for line in task.report.read_text().splitlines()] if task.report.exists() else []
    effects = tuple(line["effect"] for line in lines if "effect" in line)
    return effects, next((line["result"] for line in lines if "result" in line), {})


def run_task(task: TaskProcess) -> None:
    """Run the task. This is the entry point of the process."""
    os.environ.update(task.env)
    _arm(task)
    training_job.EARLIEST_EVENT_SECONDS = 0.0
    stages = {"package": _package, "submit": _submit, "validate": _validate, "publish": _publish}
    result = stages.get(task.mode, _wait)(task)
    _note(task, {"result": result})
    # Exit without cleanup, so that no client thread delays the end.
    os._exit(0)


def _context(task: TaskProcess, task_id: str) -> Any:
    ti = SimpleNamespace(
        dag_id="kill", run_id=task.run_id, task_id=task_id, map_index=-1, try_number=task.try_number, max_tries=2
    )
    return {"ti": ti}


def _package(task: TaskProcess) -> Any:
    package = PackageTrainerOperator(
        task_id="package", source=task.source, bucket=task.bucket, module="trainer.task", gcp_conn_id=None
    )
    return package.execute(_context(task, "package"))


def _submit(task: TaskProcess) -> Any:
    prepare = PrepareJobDirOperator(
        task_id="prepare", model="kill", job_id_hint="x", bucket=task.bucket, gcp_conn_id=None
    )
    job = prepare.execute(_context(task, "prepare"))
    submit = SubmitTrainingJobOperator(
        task_id="submit",
        job=job,
        job_file=dict(task.job_file),
        backend=task.backend,
        backend_options=task.options,
        gcp_conn_id=None,
    )
    return submit.execute(_context(task, "submit"))


def _wait(task: TaskProcess) -> Any:
    context = _context(task, "wait")
    wait = TrainingJobSensor(
        task_id="wait",
        job=cast(JobXCom, dict(task.job or {})),
        backend_options=task.options,
        gcp_conn_id=None,
        deferrable=task.mode == "deferrable",
        mode="poke",
        poll_interval_seconds=0.1,
    )
    if task.mode == "poke":
        return wait.execute(context)
    leg: Callable[[], Any] = lambda: wait.execute(context)  # noqa: E731
    while True:
        try:
            return leg()
        except TaskDeferred as deferred:
            _, arguments = deferred.trigger.serialize()
            event = asyncio.run(_first(TrainingJobTrigger(**arguments)))
            leg = lambda event=event: wait.execute_complete(context, event)  # type: ignore[misc]  # noqa: E731


def _validate(task: TaskProcess) -> Any:
    validate = ValidateModelOperator(
        task_id="validate", job=cast(JobXCom, dict(task.job or {})), validation_level="files", gcp_conn_id=None
    )
    return validate.execute(_context(task, "validate"))


def _publish(task: TaskProcess) -> Any:
    publish = PublishModelOperator(
        task_id="publish", job=cast(JobXCom, dict(task.job or {})), published_by="kill", force_by="", gcp_conn_id=None
    )
    return publish.execute(_context(task, "publish"))


async def _first(trigger: TrainingJobTrigger) -> dict[str, Any]:
    async for event in trigger.run():
        return dict(event.payload)
    raise AssertionError("a trigger without an event")


def _arm(task: TaskProcess) -> None:
    seen: list[str] = []
    launches: set[str] = set()

    def watch(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def step(self: Any, *arguments: Any, **more: Any) -> Any:
            target = arguments[0].rsplit("/", 1)[-1:] if owner is Storage else []
            what = " ".join([name.strip("_").removesuffix("_small"), *target])
            # Count each of these only once: how often a wait saves its cursor and how often a launcher is checked
            # depend on timing.
            once = f"launch {arguments[0].name}" if name == "_launch" else what
            past = name == "_launch" and arguments[0].state() is not None
            if not past and (once not in seen or once not in {"write cursor.json"} | launches):
                seen.append(once)
                launches.update({once} if name == "_launch" else ())
                if len(seen) >= task.kill_before:
                    os.kill(os.getpid(), signal.SIGKILL)
                _note(task, {"effect": what})
            return original(self, *arguments, **more)

        setattr(owner, name, step)

    for name in ("create", "replace", "write", "write_small", "delete"):
        watch(Storage, name)
    for name in ("_store", "_launch", "cancel"):
        watch(LocalBackend, name)
    # The call that creates a job in the cloud.
    watch(RestClient, "create")


def _note(task: TaskProcess, line: Mapping[str, Any]) -> None:
    with task.report.open("a", encoding="utf-8") as report:
        report.write(json.dumps(line) + "\n")
