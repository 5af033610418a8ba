"""Runs the example DAG against Vertex AI's API: a real Airflow, and the emulator in place of the cloud.

Only settings differ from a run on the local backend. What these tests cannot verify without the real service is listed
in docs/vertex-assumptions.md.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts import stack as stacks
from scripts.stack import Stack

from mlengine.core.layout import JobDir
from mlengine.testing.airflow_home import free_port
from mlengine.testing.emulator import RunningEmulator, running
from tests.e2e.stack.conftest import MONTH, RUN_SECONDS
from tests.support.airflow_setup import SETTINGS, copy_database
from tests.support.leftovers import MARK, left_running, still_running
from tests.support.live_airflow import persist

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, airflow_database: Path) -> Iterator[tuple[Stack, RunningEmulator]]:
    data = tmp_path_factory.mktemp("vertex-stack")
    copy_database(airflow_database, data / "airflow")
    before, port, mark = dict(os.environ), free_port(), uuid.uuid4().hex
    env = {
        MARK: mark,
        "AIRFLOW__MLENGINE__POLL_INTERVAL_SECONDS": "1",
        "AIRFLOW__MLENGINE__BACKEND": "vertex",
        "AIRFLOW__MLENGINE__VERTEX_ENDPOINT": f"http://127.0.0.1:{port}",
        "AIRFLOW__MLENGINE__VERTEX_REGION": "us-central1",
    }
    try:
        with (
            stacks.running(data, versions=[MONTH], env=env, settings=SETTINGS) as stack,
            # The emulator's jobs use the same environments as validation, so that the trainer's environment is built
            # once.
            running(data, port=port, project="local") as service,
        ):
            assert left_running(data, mark), "no process of a running stack was found: this check cannot fail"
            yield stack, service
        assert still_running(data, mark) == []
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_the_mnist_dag_trains_on_vertex(cloud: tuple[Stack, RunningEmulator]) -> None:
    stack, service = cloud
    api = stack.airflow.api
    api.wait_for_dag("mnist_retraining")
    conf = {"dataset_version": MONTH, "max_steps": 150, "min_accuracy": 0.7, "min_class_accuracy": 0.3}
    run = api.wait(persist(api.trigger, "mnist_retraining", conf), RUN_SECONDS, check=stack.airflow.check, every=2.0)
    tasks = {task.task_id: task for task in api.tasks(run.dag_id, run.run_id)}
    assert run.state == "success", {name: task.state for name, task in tasks.items()}
    submitted = api.xcoms(run.dag_id, run.run_id, "retrain.submit")["return_value"]
    assert isinstance(submitted, dict)
    assert submitted["backend"] == "vertex"
    # The region in the job file takes precedence over the setting.
    assert re.fullmatch(r"projects/\d+/locations/europe-west1/customJobs/\d+", submitted["name"])
    assert service.calls.count("CreateCustomJob") == 1
    asked = "\n".join(api.log(run.dag_id, run.run_id, "retrain.submit", tasks["retrain.submit"].try_number))
    for words in ("workerPoolSpecs:", "machineType:", "imageUri: python:", "at most", "USD"):
        assert words in asked, "the task's log lacks the request or its maximum cost"
    wait = tasks["retrain.wait"]
    log = "\n".join(api.log(run.dag_id, run.run_id, wait.task_id, wait.try_number, wait.map_index))
    for replica in ("chief-0", "worker-0", "worker-1", "ps-0"):
        assert f"{replica} |" in log, log[-3000:]
    folder = JobDir(submitted["job_dir"])
    assert stack.storage.exists(f"{folder.model}MANIFEST.json")
    assert stack.storage.exists(folder.report)
