"""Fixtures for tests with real processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.storage.client import Storage
from tests.integration import local_cluster
from tests.integration.gate_lab import gate_models, gate_state, lab

__all__ = ["gate_models", "gate_state", "lab"]


@pytest.fixture(scope="session")
def shared_environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Environments that tests build once for all: a state dir's ``envs`` and ``locks`` are links into it."""
    root = tmp_path_factory.mktemp("environments")
    (root / "envs").mkdir()
    return root


@pytest.fixture
def make_backend(tmp_path: Path, shared_environments: Path) -> Iterator[Callable[..., LocalBackend]]:
    """Makes local backends on one state dir; when the test ends, every job must have ended, or is cancelled."""
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
            "empty_output_warning_seconds": 0,  # most chiefs of tests end at once and write nothing
        }
        made.append(LocalBackend(state, **{**quick, **settings}))
        return made[-1]

    yield make
    if made:
        local_cluster.end_everything(made[0])


@pytest.fixture
def actor(storage: Storage, bucket: str) -> str:
    """The URI of a trainer whose replicas do what their arguments say (:func:`local_cluster.acts`)."""
    return local_cluster.put(storage, bucket, local_cluster.sdist(local_cluster.ACTOR))
