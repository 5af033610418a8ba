"""Provides the stack that this folder's tests share: a Cloud Storage server, a month of real MNIST, and a real Airflow.

Airflow uses this project's ``dags/`` and ``plugins/`` and has a temporary folder. The stack stops after the folder's
last test.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scripts import stack as stacks
from scripts.stack import Stack

from mlengine.testing.airflow_api import AirflowApi, DagRun, TaskRun
from tests.support.airflow_setup import SETTINGS, copy_database
from tests.support.leftovers import MARK, check_stop
from tests.support.live_airflow import persist

MONTH = "2026-06-01"  # the smallest version: 10,000 digits to train on
RUN_SECONDS = 1500.0  # a run takes one minute on two idle cores, and longer on a busy machine
# In the environment of every Airflow process, under names that are typical of secrets; see test_security.py.
SECRET = "canary-" + uuid.uuid4().hex


@dataclass(frozen=True)
class Ended:
    """A run that has ended, with its tasks."""

    run: DagRun
    tasks: dict[str, TaskRun]
    api: AirflowApi

    def xcoms(self, task_id: str) -> dict[str, Any]:
        return self.api.xcoms(self.run.dag_id, self.run.run_id, task_id)

    def result(self, task_id: str) -> dict[str, Any]:
        value = self.xcoms(task_id)["return_value"]
        assert isinstance(value, dict), value
        return value

    def log(self, task_id: str) -> str:
        task = self.tasks[task_id]
        return "\n".join(self.api.log(self.run.dag_id, self.run.run_id, task_id, task.try_number, task.map_index))

    def states(self) -> dict[str, str | None]:
        return {name: task.state for name, task in self.tasks.items()}


@pytest.fixture(scope="package")
def mark() -> str:
    """The value of :data:`MARK` in the environment of every process that a stack starts."""
    return uuid.uuid4().hex


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory, mark: str, airflow_database: Path) -> Iterator[Stack]:
    data = tmp_path_factory.mktemp("stack")
    copy_database(airflow_database, data / "airflow")
    before = dict(os.environ)
    env = {
        MARK: mark,
        "AIRFLOW__MLENGINE__POLL_INTERVAL_SECONDS": "1",
        "AIRFLOW_CONN_ELSEWHERE": f"https://me:{SECRET}@there.invalid",
        "MY_TOKEN": SECRET,
    }
    try:
        with stacks.running(data, versions=[MONTH], env=env, settings=SETTINGS) as started:
            yield started
            # A failure here is reported as an error of the folder's last test.
            check_stop(started, mark, {"dataset_version": MONTH, "max_steps": 100_000})
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="package")
def api(stack: Stack) -> AirflowApi:
    return stack.airflow.api


@pytest.fixture(scope="package")
def finish(stack: Stack) -> Callable[[DagRun], Ended]:
    """Returns a function that waits for the end of a run."""

    def wait(run: DagRun) -> Ended:
        api = stack.airflow.api
        ended = api.wait(run, RUN_SECONDS, check=stack.airflow.check, every=2.0)
        return Ended(ended, {task.task_id: task for task in api.tasks(run.dag_id, run.run_id)}, api)

    return wait


@pytest.fixture(scope="package")
def first(api: AirflowApi, finish: Callable[[DagRun], Ended]) -> Ended:
    """The first run of ``mnist_retraining``, triggered as the UI's form does."""
    api.wait_for_dag("mnist_retraining")
    # With so few steps, some runs have a digit or two below the form's default minimum accuracy.
    conf = {"dataset_version": MONTH, "max_steps": 250, "min_accuracy": 0.85, "min_class_accuracy": 0.5}
    return finish(persist(api.trigger, "mnist_retraining", conf))


@pytest.fixture(scope="package")
def hello(api: AirflowApi, finish: Callable[[DagRun], Ended]) -> Ended:
    """A run of the smallest trainer, trained by three processes and published."""
    api.wait_for_dag("hello_trainer")
    return finish(persist(api.trigger, "hello_trainer"))


@pytest.fixture(scope="package")
def trainer_python(stack: Stack, first: Ended) -> Path:
    """The interpreter of the environment in which the trainer ran."""
    assert first.run.state == "success"
    found = [python for python in (stack.data / "local").rglob("bin/python") if _has_tensorflow(python)]
    assert len(found) == 1, found
    return found[0]


def _has_tensorflow(python: Path) -> bool:
    return any(python.parent.parent.glob("lib/python3*/site-packages/tensorflow"))
