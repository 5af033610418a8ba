"""The environment of a job on one node of a Ray cluster, built with uv, without Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlengine.backends.ray.prepare import prepare
from mlengine.backends.ray.record import Stored
from mlengine.backends.ray.settings import RaySettings
from mlengine.runtime.venv import lock_path
from mlengine.storage.client import Storage
from tests.support import local_jobs, ray_jobs

pytestmark = pytest.mark.integration


def test_a_node_keeps_as_many_unused_environments_as_set(storage: Storage, bucket: str, tmp_path: Path) -> None:
    settings = replace(RaySettings.load(), keep_environments=1)
    digests = []
    for number in range(2):
        data, name = local_jobs.wheel(f"print({number})"), f"{number}/tiny-1.0-py3-none-any.whl"
        uri = local_jobs.put(storage, bucket, data, name)
        digests.append(prepare(Stored(ray_jobs.submission(uri, bucket), settings), storage, tmp_path)["digest"])
    first, second = digests
    assert [path.name for path in (tmp_path / "envs").iterdir()] == [second]
    assert not lock_path(tmp_path, first).exists(), "the lock file goes with the environment"
