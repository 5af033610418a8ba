"""Fixtures for tests with real processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlengine import backends
from mlengine.backends.local.backend import LocalBackend
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from mlengine.testing.gcs import GcsServer
from tests.support import airflow_stub as airflow_stubs
from tests.support import local_jobs
from tests.support.airflow_stub import AirflowStub
from tests.support.sample_jobs import BACKEND, SampleJobs
from tests.support.scripted_backends import ScriptedBackend, vertex_over_memory
from tests.support.scripted_ray import ray_over_memory
from tests.support.validation_env import ValidationEnv, make_models, register_datasets

if TYPE_CHECKING:
    from fastapi.testclient import TestClient


@pytest.fixture(scope="session")
def shared_environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Environments that are built once for all tests: the ``envs`` and ``locks`` of a state dir are links into it."""
    root = tmp_path_factory.mktemp("environments")
    (root / "envs").mkdir()
    return root


@pytest.fixture
def make_backend(tmp_path: Path, shared_environments: Path) -> Iterator[Callable[..., LocalBackend]]:
    """A function that creates local backends with one state dir.

    At the end of the test all jobs must have ended; jobs that still run are cancelled.
    """
    made: list[LocalBackend] = []
    state = tmp_path / "state"
    state.mkdir()
    (state / "envs").symlink_to(shared_environments / "envs")

    def make(**settings: object) -> LocalBackend:
        quick = {
            "termination_grace_seconds": 2.0,
            "linger_seconds": 2.0,
            "restart_backoff_seconds": 0.1,
            "max_concurrent_jobs": 2,
            "log_upload_timeout_seconds": 0,
            "empty_output_warning_seconds": 0,  # most test chiefs exit immediately and write nothing
        }
        made.append(LocalBackend(state, **{**quick, **settings}))
        return made[-1]

    yield make
    if made:
        local_jobs.end_everything(made[0])


@pytest.fixture
def actor(storage: Storage, bucket: str) -> str:
    """The URI of a trainer whose replicas do what their arguments say (:func:`local_jobs.acts`)."""
    return local_jobs.put(storage, bucket, local_jobs.sdist(local_jobs.ACTOR))


@pytest.fixture(scope="session")
def validation_state_dir(tmp_path_factory: pytest.TempPathFactory, shared_environments: Path) -> Path:
    """The local backend's state dir, with the environments that all tests share."""
    state = tmp_path_factory.mktemp("validation-state")
    (state / "envs").symlink_to(shared_environments / "envs")
    return state


@pytest.fixture(scope="session")
def validation_models(
    tmp_path_factory: pytest.TempPathFactory, validation_state_dir: Path, gcs_server: GcsServer, digits: Path
) -> Path:
    """A folder with every model of ``make_models.py``. Also registers the datasets and the package."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in gcs_server.env.items():
            patch.setenv(name, value)
        storage = Storage()
        register_datasets(storage, digits)
        make_models(storage, digits, folder, validation_state_dir)
    return folder


@pytest.fixture
def validation_env(storage: Storage, bucket: str, validation_models: Path, validation_state_dir: Path) -> ValidationEnv:
    return ValidationEnv(storage, bucket, validation_models, validation_state_dir)


@pytest.fixture(params=["memory", "ray", "vertex"])
def scripted_backend(request: pytest.FixtureRequest, storage: Storage, tmp_path: Path) -> Iterator[ScriptedBackend]:
    """Each backend in turn, for tests that must pass with every backend."""
    if request.param == "memory":
        yield MemoryBackend()
    elif request.param == "ray":
        with ray_over_memory(storage) as ray:
            yield ray
    else:
        with vertex_over_memory(tmp_path / "emulator", storage) as backend:
            yield backend


@pytest.fixture
def sample_jobs(storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SampleJobs]:
    """A helper that creates jobs in this bucket; :func:`visit` shows them."""
    from airflow.models.revoked_token import RevokedToken

    from mlengine.connections import forget_connections
    from mlengine.web import routes

    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", bucket)
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a-secret-of-this-test-" * 4)
    # Airflow keeps the list of revoked tokens in its database, which only the end-to-end tests have.
    monkeypatch.setattr(RevokedToken, "is_revoked", lambda _: False)
    # Forget credentials from the environment, which these tests' server does not need.
    forget_connections()
    monkeypatch.setattr(routes, "_storage", lambda: storage)
    monkeypatch.setattr(routes, "triggered_by", lambda runs: {run: "ann" for run in runs if run[1] == "manual"})
    routes.clear_caches()
    BACKEND.clear()
    backends.register("memory", lambda **_: BACKEND)
    yield SampleJobs(storage, bucket)
    routes.clear_caches()


@pytest.fixture
def visit(sample_jobs: SampleJobs) -> Callable[..., TestClient]:
    """Opens the page as a user with a role (``role=None``: not logged in); see :func:`page_client.opener`."""
    from tests.support.page_client import opener

    assert sample_jobs
    return opener()


@pytest.fixture
def airflow_stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowStub]:
    """A stub of Airflow's API, with its address in the environment."""
    with airflow_stubs.running() as server:
        monkeypatch.setenv("MLENGINE_AIRFLOW_URL", server.url)
        monkeypatch.setenv("MLENGINE_AIRFLOW_TOKEN", "secret")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
