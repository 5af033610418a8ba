"""One job on the local backend, from submission to its end, with real processes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from uv import find_uv_bin

from mlengine.backends.local.backend import LocalBackend
from mlengine.core.job import JobState
from mlengine.storage import Storage
from tests.integration import local_cluster as local

pytestmark = pytest.mark.integration
Make = Callable[..., LocalBackend]
HELLO = Path(__file__).parents[2] / "examples" / "hello"


def test_hello_trains_on_a_cluster(make_backend: Make, storage: Storage, bucket: str, tmp_path: Path) -> None:
    shutil.copytree(HELLO, tmp_path / "hello")
    subprocess.run([find_uv_bin(), "build", "-q", "--sdist", "-o", tmp_path / "dist", tmp_path / "hello"], check=True)
    uri = local.put(storage, bucket, (tmp_path / "dist" / "hello-1.0.0.tar.gz").read_bytes(), "hello-1.0.0.tar.gz")
    spec = local.spec(uri, worker=2, ps=1, module="hello.task", args=("--max_steps", "3", "--name", "Anna & Bob"))
    backend = make_backend()
    handle = backend.submit(local.submission(bucket, spec))
    assert local.until_ended(backend, handle).state is JobState.SUCCEEDED
    said = local.texts(backend, handle)
    assert "chief-0: step 1: Hallo, Anna & Bob!" in said
    assert "worker-1: step 3: こんにちは, Anna & Bob!" in said
    assert "ps-0: ps-0 of 4 says:" in said
    result = json.loads(storage.read(f"{handle.job_dir}/model/result.json"))
    assert {name: len(found) for name, found in result["cluster"]["cluster"].items()} == {
        "chief": 1,
        "worker": 2,
        "ps": 1,
    }
    assert json.loads(storage.read(f"{handle.job_dir}/train/progress.json"))["step"] == 3
