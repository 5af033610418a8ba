"""A training service for users' own tests: Vertex AI's API on loopback, which runs the jobs for real.

::

    pytest_plugins = ["mlengine.testing.emulator"]

    def test_my_dag(training_service): ...

While the test runs, this project's operators train on Vertex AI, which is the service; the connection
``google_cloud_default`` and the bucket are set for it. A scripted fault that never struck fails the test.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends import TrainingBackend, get_backend
from mlengine.core.errors import MlengineError
from mlengine.emulator.faults import Fault
from mlengine.emulator.server import Service
from mlengine.storage.client import Storage
from mlengine.testing import gcs


class TrainingService:
    """A started service, and what a test wants of it. At ``url`` Vertex AI, ML Engine and Cloud Logging all answer."""

    def __init__(self, service: Service, project: str, region: str) -> None:
        self.service, self.project, self.region = service, project, region
        self.url = service.url

    @property
    def env(self) -> dict[str, str]:
        """For processes: this project's settings, and gcloud's endpoints."""
        root = f"{self.url}/"
        return {
            "AIRFLOW__MLENGINE__VERTEX_ENDPOINT": self.url,
            "AIRFLOW__MLENGINE__VERTEX_PROJECT": self.project,
            "AIRFLOW__MLENGINE__VERTEX_REGION": self.region,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": root,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_ML": root,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING": root,
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CORE_PROJECT": self.project,
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        }

    @property
    def connection(self) -> str:
        """An Airflow connection in JSON, for ``AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT``."""
        extra = {"project": self.project, "region": self.region, "vertex_endpoint": self.url, "is_anonymous": True}
        return json.dumps({"conn_type": "google_cloud_platform", "extra": extra})

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments for ``get_backend("vertex", …)``."""
        return {"project": self.project, "region": self.region, "endpoint": self.url}

    @property
    def calls(self) -> list[str]:
        """Every method called so far, in order."""
        return list(self.service.script.calls)

    def script(self, method: str, action: str, **more: Any) -> None:
        """Let the next call of ``method`` meet a fault: see :mod:`mlengine.emulator.faults`."""
        self.service.script.add(Fault.from_json({"method": method, "action": action, **more}))


@contextmanager
def running(
    folder: Path,
    *,
    backend: TrainingBackend | None = None,
    local: Mapping[str, Any] | None = None,
    storage: Storage | None = None,
    bucket: str | None = None,
    project: str = "test-project",
    region: str = "us-central1",
    port: int = 0,
    grpc_port: int | None = None,
    faults: Sequence[Fault] = (),
    keep_jobs: bool = False,
) -> Iterator[TrainingService]:
    """A service for the block's length. Jobs that have not ended are cancelled at its end.

    :param folder: what the service and its jobs keep; the same folder again has the same jobs.
    :param backend: in place of the local one. :param local: settings of the local one.
    :param grpc_port: serve Vertex AI's methods over gRPC too; 0 takes a free port (``service.grpc.target``).
    :param keep_jobs: let jobs go on without the service.
    :raises MlengineError: at the end, if a scripted fault never struck.
    """
    runs = backend or get_backend("local", state_dir=folder / "local", **(local or {}))
    service = Service(
        runs,
        folder / "service",
        storage=storage or Storage(),
        bucket=bucket,
        port=port,
        grpc_port=grpc_port,
        faults=faults,
    )
    service.start()
    try:
        yield TrainingService(service, project, region)
    finally:
        if not keep_jobs:
            service.engine.cancel_all()
        service.stop()
    unused = service.script.unused()
    if unused:
        raise MlengineError(
            f"scripted faults never struck: {', '.join(f'{fault.method} {fault.action}' for fault in unused)}",
            remedy="does the test call that method, and often enough?",
        )


@pytest.fixture
def training_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainingService]:
    """A service, an empty bucket (``AIRFLOW__MLENGINE__BUCKET``), and an environment in which everything finds them.

    A Cloud Storage server is started too, unless ``STORAGE_EMULATOR_HOST`` names one.
    """
    with ExitStack() as stack:
        if not os.environ.get("STORAGE_EMULATOR_HOST"):
            for name, value in stack.enter_context(gcs.running()).env.items():
                monkeypatch.setenv(name, value)
        bucket = f"training-service-{uuid.uuid4().hex[:12]}"
        Storage().client.create_bucket(bucket)
        service = stack.enter_context(running(tmp_path / "training-service", bucket=f"gs://{bucket}"))
        own = {
            **service.env,
            "AIRFLOW__MLENGINE__BACKEND": "vertex",
            "AIRFLOW__MLENGINE__BUCKET": f"gs://{bucket}",
            "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": service.connection,
        }
        for name, value in own.items():
            monkeypatch.setenv(name, value)
        yield service
