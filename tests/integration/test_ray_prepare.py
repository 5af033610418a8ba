"""Tests building a job's environment on one node of a Ray cluster with uv, without Ray."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mlengine.backends.ray.prepare import prepare
from mlengine.backends.ray.record import Stored
from mlengine.backends.ray.settings import RaySettings
from mlengine.core.errors import EnvironmentBuildError
from mlengine.runtime.file_lock import FileLock
from mlengine.runtime.venv import lock_path
from mlengine.storage.client import Storage
from tests.support import local_jobs
from tests.support.ray_jobs import submission

pytestmark = pytest.mark.integration
TOO_OLD = {"PKG-INFO": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\nRequires-Python: >=3.7,<3.11\n"}
HANGS = {"setup.py": "import time; time.sleep(3600)"}


def failed(storage: Storage, bucket: str, node_dir: Path, extra: Mapping[str, str], seconds: float) -> str:
    """The hint of the error with which the build fails."""
    uri = local_jobs.put(storage, bucket, local_jobs.sdist("print(1)", extra=extra))
    stored = Stored(submission(uri, bucket), RaySettings.load(build_timeout_seconds=seconds))
    with pytest.raises(EnvironmentBuildError) as caught:
        prepare(stored, storage, node_dir)
    return caught.value.hint


def test_the_hint_for_a_build_that_hangs_names_the_ray_setting(storage: Storage, bucket: str, tmp_path: Path) -> None:
    hint = failed(storage, bucket, tmp_path, HANGS, 0.5)
    assert "increase the setting ray_build_timeout_seconds" in hint
    digest = next(path.stem for path in (tmp_path / "locks").glob("env-*.lock")).removeprefix("env-")
    with FileLock.take(lock_path(tmp_path, digest), wait=10.0) or pytest.fail("the lock was not released"):
        hint = failed(storage, bucket, tmp_path, HANGS, 0.5)
    assert hint == "try again later, or increase the setting ray_build_timeout_seconds"


def test_the_hint_for_an_old_package_names_the_nodes_python(storage: Storage, bucket: str, tmp_path: Path) -> None:
    hint = failed(storage, bucket, tmp_path, TOO_OLD, 60)
    assert hint == "use a Ray cluster whose nodes have a Python that it accepts; or change requires-python"


def test_a_node_removes_unused_data_of_the_trainers(storage: Storage, bucket: str, tmp_path: Path) -> None:
    old = tmp_path / "data-cache" / "old"
    old.parent.mkdir()
    old.touch()
    os.utime(old, (0, 0))
    uri = local_jobs.put(storage, bucket, local_jobs.wheel("print()"), "tiny-1.0-py3-none-any.whl")
    prepare(Stored(submission(uri, bucket), RaySettings.load(keep_data_days=0)), storage, tmp_path)
    assert old.exists()
    prepare(Stored(submission(uri, bucket), RaySettings.load()), storage, tmp_path)
    assert not old.exists()


def test_a_node_keeps_the_configured_number_of_unused_environments(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    settings = replace(RaySettings.load(), keep_environments=1)
    digests = []
    for number in range(2):
        data, name = local_jobs.wheel(f"print({number})"), f"{number}/tiny-1.0-py3-none-any.whl"
        uri = local_jobs.put(storage, bucket, data, name)
        digests.append(prepare(Stored(submission(uri, bucket), settings), storage, tmp_path)["digest"])
    first, second = digests
    assert [path.name for path in (tmp_path / "envs").iterdir()] == [second]
    assert not lock_path(tmp_path, first).exists(), "the lock file must be deleted with the environment"
