"""Fixtures that all tests share: a real Cloud Storage server per session, and a new bucket per test."""

from __future__ import annotations

import gc
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from scripts import mnist, stack

from mlengine import backends
from mlengine.storage.client import Storage
from mlengine.testing import gcs

# By default, Python's garbage collector takes a quarter of the unit tests' CPU time.
gc.set_threshold(10_000)
# Let failed assertions in helpers show their values too.
pytest.register_assert_rewrite("tests.support")
pytest_plugins = [
    "tests.support.distribution",
    "tests.support.interrupts",
    "tests.support.cpu_time",
    "scripts.skips",
]

# The duration of one example depends more on the load of the machine than on the code.
settings.register_profile("mlengine", deadline=None)
settings.load_profile("mlengine")


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unregister the backends that a test registered."""
    monkeypatch.setattr(backends, "_BACKENDS", dict(backends._BACKENDS))


@pytest.fixture(scope="session", autouse=True)
def own_stack_ports() -> Iterator[None]:
    """Choose free ports: stacks of other test processes, or of ``make run``, must not try the same ports first."""
    from mlengine.testing.airflow_home import free_port

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack, "PORTS", {name: free_port() for name in stack.PORTS})
        yield


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[gcs.GcsServer]:
    with gcs.running() as server:
        yield server


@pytest.fixture(scope="session")
def airflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of an Airflow with a migrated database, to be copied."""
    from tests.support.airflow_setup import session_database

    return session_database(tmp_path_factory)


@pytest.fixture
def storage(gcs_server: gcs.GcsServer, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A client of the session's server. Processes that the test starts find the same server by the environment."""
    for name, value in gcs_server.env.items():
        monkeypatch.setenv(name, value)
    assert "STORAGE_EMULATOR_HOST" in os.environ
    return Storage()


@pytest.fixture
def bucket(storage: Storage) -> str:
    """The URI of a new, empty bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    storage.client.create_bucket(name)
    return f"gs://{name}"


@pytest.fixture(scope="session")
def digits() -> Path:
    """The directory of the real MNIST files, downloaded once per clone; see ``scripts/mnist.py``."""
    return mnist.files()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Use no id for bytes: archives contain a timestamp, and xdist needs the same ids in every process."""
    return argname if isinstance(val, bytes) else None
