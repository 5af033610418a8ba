"""The fixture for users' tests, as its manual shows it: an operator trains on it, by an Airflow connection."""

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
from mlengine.core.job import JobState
from mlengine.operators.prepare import PrepareJobDirOperator
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from mlengine.testing.emulator import TrainingService, running, training_service
from tests.integration import local_cluster as local
from tests.integration.test_vertex_backend import wait

pytestmark = pytest.mark.integration
__all__ = ["training_service"]


def test_a_fault_that_never_struck_is_reported(storage: Storage, tmp_path: Path) -> None:
    """What was scripted and not met was not tested."""
    stack = ExitStack()
    service = stack.enter_context(running(tmp_path / "service", backend=MemoryBackend(), storage=storage))
    service.script("DeleteCustomJob", "reset")
    service.script("projects.jobs.list", "status")
    assert requests.get(f"{service.url}/v1/projects/p/jobs", timeout=10).status_code == 503
    with pytest.raises(MlengineError, match=r"never struck: DeleteCustomJob reset\n"):
        stack.close()


def test_operators_train_on_it(training_service: TrainingService, monkeypatch: pytest.MonkeyPatch) -> None:
    connections.connect_storage.cache_clear()
    training_service.script("CreateCustomJob", "lose")
    uri = local.put(Storage(), os.environ["AIRFLOW__MLENGINE__BUCKET"], local.sdist(local.ACTOR))
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1, max_tries=0)
    context: dict[str, Any] = {"ti": ti}
    job = PrepareJobDirOperator(task_id="prepare", model="m", job_id_hint="h").execute(context)
    operator = SubmitTrainingJobOperator(
        task_id="submit",
        job=job,
        job_file={"trainingInput": {"pythonModule": "tiny.task", "packageUris": [uri], "region": "europe-west1"}},
    )
    submitted = operator.execute(context)
    assert submitted["backend"] == "vertex"
    assert submitted["name"].startswith("projects/test-project/locations/europe-west1/customJobs/")
    assert training_service.calls.count("CreateCustomJob") == 1
    backend: Any = connections.connect_backend(None, "google_cloud_default")
    handles = backend.find(training_service.service.engine.store.all()[0].labels["mlengine-key"][1:])
    assert wait(backend, handles[0]).state is JobState.SUCCEEDED
    assert backend.console_url(handles[0]) is None
    connections.connect_storage.cache_clear()
