"""Tests the pytest fixture for users: an operator submits a job to the emulator through an Airflow connection."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from mlengine import connections
from mlengine.core.errors import MlengineError
from mlengine.core.job import JobHandle, JobState
from mlengine.emulator.projects import location_name
from mlengine.operators.prepare import PrepareJobDirOperator
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from mlengine.testing.emulator import RunningEmulator, mlengine_emulator, running
from tests.integration.test_vertex_backend import wait
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration
__all__ = ["mlengine_emulator"]


def test_a_fault_that_was_not_triggered_is_an_error(storage: Storage, tmp_path: Path) -> None:
    stack = ExitStack()
    emulator = stack.enter_context(running(tmp_path / "emulator", backend=MemoryBackend(), storage=storage))
    emulator.script("DeleteCustomJob", "reset")
    emulator.script("projects.jobs.list", "status")
    assert requests.get(f"{emulator.url}/v1/projects/p/jobs", timeout=60).status_code == 503
    with pytest.raises(MlengineError, match=r"faults not triggered: DeleteCustomJob reset\n"):
        stack.close()


def test_operators_submit_jobs_to_it(mlengine_emulator: RunningEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    connections.forget_connections()
    mlengine_emulator.script("CreateCustomJob", "lose")
    uri = local.put(Storage(), os.environ["AIRFLOW__MLENGINE__BUCKET"], local.sdist(local.ACTOR))
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1, max_tries=0)
    context: Any = {"ti": ti}
    job = PrepareJobDirOperator(task_id="prepare", model="m", job_id_hint="h").execute(context)
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job=job,
        job_file={"trainingInput": {"pythonModule": "tiny.task", "packageUris": [uri], "region": "europe-west1"}},
    )
    submitted = operator.execute(context)
    assert submitted["backend"] == "vertex"
    assert submitted["name"].startswith(f"{location_name('test-project', 'europe-west1')}/customJobs/")
    assert mlengine_emulator.calls.count("CreateCustomJob") == 1
    backend: Any = connections.CloudAccess().backend()
    handle = JobHandle.from_json(submitted)
    assert wait(backend, handle).state is JobState.SUCCEEDED
    assert backend.console_url(handle) is None
    connections.forget_connections()
