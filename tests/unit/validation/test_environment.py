"""Where validation finds the trainer's environment; building one is tested with the local backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlengine.core.errors import EnvironmentBuildError
from mlengine.storage.client import Storage
from mlengine.validation.environment import local_place


def test_without_packages_there_is_no_environment(tmp_path: Path) -> None:
    place = local_place(Storage(), [], tmp_path)
    with pytest.raises(EnvironmentBuildError, match="which packages") as error, place.python():
        pass
    assert "validation_level='signature'" in error.value.hint


def test_nothing_is_made_before_it_is_asked_for(tmp_path: Path) -> None:
    place = local_place(Storage(), ["gs://bucket/packages/trainer.tar.gz"], tmp_path)
    assert place.datasets == tmp_path / "datasets"
    assert list(tmp_path.iterdir()) == []
