"""The environment of a validation. Building an environment is tested with the local backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlengine.core.errors import EnvironmentBuildError
from mlengine.storage.client import Storage
from mlengine.validation.environment import local_environment


def test_an_environment_without_packages_is_an_error(tmp_path: Path) -> None:
    environment = local_environment(Storage(), [], tmp_path)
    with (
        pytest.raises(EnvironmentBuildError, match=r"packages .* are unknown") as error,
        environment.python(),
    ):
        pass
    assert "validation_level='signature'" in error.value.hint


def test_nothing_is_built_before_the_first_use(tmp_path: Path) -> None:
    environment = local_environment(Storage(), ["gs://bucket/packages/trainer.tar.gz"], tmp_path)
    assert environment.datasets == tmp_path / "datasets"
    assert list(tmp_path.iterdir()) == []
