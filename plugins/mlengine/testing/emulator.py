"""An emulator for users' own tests: Vertex AI's API on loopback, which runs jobs as processes.

::

    pytest_plugins = ["mlengine.testing.emulator"]

    def test_my_dag(mlengine_emulator): ...

During the test, this project's operators submit jobs to the emulator. The fixture sets the connection
``google_cloud_default`` and the bucket for it. A scripted fault that no call has triggered fails the test.
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
from mlengine.emulator import messages
from mlengine.emulator.faults import Fault
from mlengine.emulator.server import Emulator
from mlengine.storage.client import Storage
from mlengine.testing import dag_tests, gcs


class RunningEmulator:
    """A started emulator. Vertex AI, ML Engine and Cloud Logging are all at ``url``.

    :param server: the emulator.
    :param project: the Google Cloud project in the settings below.
    :param region: the region in the settings below.
    """

    def __init__(self, server: Emulator, project: str, region: str) -> None:
        self.server, self.project, self.region = server, project, region
        self.url = server.url

    @property
    def env(self) -> dict[str, str]:
        """The environment variables for other processes: this project's settings, and gcloud's endpoints."""
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
        """The Airflow connection as JSON, for ``AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT``."""
        extra = {"project": self.project, "region": self.region, "vertex_endpoint": self.url, "is_anonymous": True}
        return json.dumps({"conn_type": "google_cloud_platform", "extra": extra})

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments for ``get_backend("vertex", …)``."""
        return {"project": self.project, "region": self.region, "endpoint": self.url}

    @property
    def calls(self) -> list[str]:
        """The names of all methods called so far, in order."""
        return list(self.server.script.calls)

    def script(self, method: str, action: str, **more: Any) -> None:
        """Apply a fault to the next call of ``method``: see :mod:`mlengine.emulator.faults`.

        :param more: further fields of :class:`~mlengine.emulator.faults.Fault`.
        :raises EmulatorApiError: there is no such fault.
        """
        self.server.script.add(Fault.from_json({"method": method, "action": action, **more}))


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
) -> Iterator[RunningEmulator]:
    """Run an emulator for the duration of the block, and cancel the jobs that have not ended.

    :param folder: the state of the emulator and its jobs. An emulator on the same folder has the same jobs.
    :param backend: the backend that runs the jobs; by default the local one.
    :param local: settings of the local backend.
    :param storage: the bucket's client.
    :param bucket: the bucket ``gs://NAME`` for the logs of jobs that name no bucket.
    :param port: the HTTP port; 0 selects a free one.
    :param grpc_port: the gRPC port; 0 selects a free one (``emulator.server.grpc.target``), ``None`` disables gRPC.
    :param faults: scripted faults.
    :param keep_jobs: do not cancel jobs.
    :raises EmulatorError: the emulator cannot start.
    :raises MlengineError: at the end, if no call has triggered a scripted fault.
    """
    messages.load()
    server = Emulator(
        backend or get_backend("local", state_dir=folder / "local", **(local or {})),
        folder / "emulator",
        storage=storage or Storage(),
        bucket=bucket,
        port=port,
        grpc_port=grpc_port,
        faults=faults,
    )
    try:
        server.start()
        yield RunningEmulator(server, project, region)
    finally:
        if not keep_jobs:
            server.engine.cancel_all()
        server.stop()
    unused = server.script.unused()
    if unused:
        raise MlengineError(
            f"faults not triggered: {', '.join(f'{fault.method} {fault.action}' for fault in unused)}",
            hint="check that the test calls these methods, and often enough",
        )


def pytest_configure(config: pytest.Config) -> None:
    """Prepare Airflow for ``dag.test()``, unless ``AIRFLOW_HOME`` is set: see :mod:`mlengine.testing.dag_tests`."""
    dag_tests.prepare(config)


@pytest.fixture
def mlengine_emulator(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningEmulator]:
    """An emulator, an empty bucket (``AIRFLOW__MLENGINE__BUCKET``), and the environment variables for both.

    The fixture also starts a Cloud Storage server, unless ``STORAGE_EMULATOR_HOST`` names one, and creates Airflow's
    database, unless ``AIRFLOW_HOME`` is set.
    """
    dag_tests.migrate(request.config)
    with ExitStack() as stack:
        storage = gcs.CLIENT_SETTINGS
        if not os.environ.get("STORAGE_EMULATOR_HOST"):
            storage = stack.enter_context(gcs.running()).env
        for name, value in storage.items():
            monkeypatch.setenv(name, value)
        bucket = f"mlengine-emulator-{uuid.uuid4().hex[:12]}"
        Storage().client.create_bucket(bucket)
        emulator = stack.enter_context(running(tmp_path / "mlengine-emulator", bucket=f"gs://{bucket}"))
        variables = {
            **emulator.env,
            "AIRFLOW__MLENGINE__BACKEND": "vertex",
            "AIRFLOW__MLENGINE__BUCKET": f"gs://{bucket}",
            "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": emulator.connection,
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield emulator
