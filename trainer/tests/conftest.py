"""Fixtures of the trainer's tests: MNIST's digits, small dataset versions, and a Cloud Storage server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# The digits and the server come from the project that contains this trainer; both need only Python.
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from tests import datasets  # noqa: E402

pytest_plugins = ["scripts.skips"]


@pytest.fixture(scope="session")
def digits() -> Path:
    """The directory with MNIST's four files."""
    from scripts import mnist

    return mnist.files()


@pytest.fixture(scope="session")
def dataset(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset version with 6,000 training and 1,000 held-out digits."""
    return datasets.make(tmp_path_factory.mktemp("data") / "small", digits, train=6_000, heldout=1_000)


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[object]:
    from mlengine.testing import gcs

    with gcs.running() as server:
        yield server


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLENGINE_DATA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
