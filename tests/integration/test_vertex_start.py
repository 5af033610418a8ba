"""Tests a container's start command, run as Vertex AI would run it, with only Python and pip."""

from __future__ import annotations

import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from mlengine.core.spec import TrainingSpec
from mlengine.runtime.rendezvous import rendezvous_variables
from mlengine.storage.client import Storage
from tests.support import local_jobs as local
from tests.support.vertex_container import make_image, start

pytestmark = pytest.mark.integration

PRINT_ENVIRONMENT = """
import importlib.metadata, json, os, sys
names = ("AIP_MODEL_DIR", "AIP_CHECKPOINT_DIR", "AIP_TENSORBOARD_LOG_DIR", "MLENGINE_ATTEMPT", "TF_CONFIG",
         "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "JAX_COORDINATOR_ADDRESS", "LIGHTGBM_MACHINES")
print(json.dumps({
    "args": sys.argv[1:],
    "env": {name: os.environ.get(name) for name in names},
    "scratch": os.path.isdir(os.environ["MLENGINE_SCRATCH"]),
    "iniconfig": importlib.metadata.version("iniconfig"),
}), flush=True)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("image") / "venv")


def wheel_free_sdist(version: str, dependencies: str, constraints: str | None) -> bytes:
    extra = {"constraints.txt": constraints} if constraints else {}
    return local.sdist(PRINT_ENVIRONMENT, version=version, dependencies=dependencies, extra=extra)


def test_the_start_command_installs_the_package_and_runs_the_trainer(
    image: Path, storage: Storage, bucket: str
) -> None:
    data = wheel_free_sdist("1.0", '["iniconfig"]', "iniconfig==2.0.0\n")
    uri = local.put(storage, bucket, data, "a folder/tiny-1.0.tar.gz")
    spec = TrainingSpec("tiny.task", (uri,), ("5", "--name", "Anna & Bob"), primary_name="master")
    config = {"cluster": {"chief": ["c:1"], "worker": ["w:1"]}, "task": {"type": "chief", "index": 0}}
    env = {"STORAGE_EMULATOR_HOST": os.environ["STORAGE_EMULATOR_HOST"], "TF_CONFIG": json.dumps(config)}
    env["MASTER_PORT"] = "3333"  # a value that the service, the image or the job sets is kept
    job_dir = f"{bucket}/m/j"
    done = start(image, spec, env, job_dir=job_dir)
    assert done.returncode == 5, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["args"] == ["5", "--name", "Anna & Bob", "--job-dir", job_dir]
    assert printed["env"]["AIP_MODEL_DIR"] == f"{job_dir}/model/"
    assert printed["env"]["AIP_CHECKPOINT_DIR"] == printed["env"]["AIP_TENSORBOARD_LOG_DIR"] == f"{job_dir}/train/"
    assert printed["env"]["MLENGINE_ATTEMPT"] == "3"
    assert json.loads(printed["env"]["TF_CONFIG"])["task"]["type"] == "master"
    world = {name: value for name, value in printed["env"].items() if name in rendezvous_variables(config)}
    assert world == {
        "MASTER_ADDR": "c",
        "MASTER_PORT": "3333",
        "RANK": "0",
        "WORLD_SIZE": "2",
        "JAX_COORDINATOR_ADDRESS": "c:29501",
        "LIGHTGBM_MACHINES": "c:1,w:1",
    }
    assert printed["scratch"]
    assert printed["iniconfig"] == "2.0.0", "constraints.txt must pin the trainer's dependencies"
    # The installed versions are recorded in the same place as by the local backend, with the name of the image.
    noted = storage.read(f"{job_dir}/logs/environment.txt").decode().splitlines()
    assert noted[0] == "# image python:3.11-slim"
    assert "iniconfig==2.0.0" in noted
    # The service sets no TF_CONFIG for a single replica; a job file for ML Engine means a cluster of one.
    del env["TF_CONFIG"]
    done = start(image, replace(spec, single_replica_tf_config=True), env, job_dir=job_dir)
    config = json.loads(json.loads(done.stdout.splitlines()[-1])["env"]["TF_CONFIG"])
    assert config["cluster"] == {"master": ["127.0.0.1:2222"]}
    assert config["task"] == {"type": "master", "index": 0}
    assert json.loads(done.stdout.splitlines()[-1])["env"]["WORLD_SIZE"] == "1"
    # An older trainer in the image is replaced, whatever its version.
    again = local.sdist("import sys; print('another one'); sys.exit(0)")
    local.put(storage, bucket, again, "a folder/tiny-1.0.tar.gz")
    done = start(image, spec, env)
    assert done.returncode == 0, done.stderr
    assert "another one" in done.stdout


def test_a_replica_installs_the_extra_of_its_accelerator(image: Path, storage: Storage, bucket: str) -> None:
    extras = '[]\n[project.optional-dependencies]\ncpu = ["iniconfig==2.0.0"]\ngpu = ["iniconfig==2.1.0"]'
    uri = local.put(storage, bucket, wheel_free_sdist("4.0", extras, None), "extras/tiny-4.0.tar.gz")
    spec = TrainingSpec("tiny.task", (uri,), ("0",))
    env = {"STORAGE_EMULATOR_HOST": os.environ["STORAGE_EMULATOR_HOST"]}
    for accelerator, version in (("", "2.0.0"), ("NVIDIA_L4", "2.1.0")):
        done = start(image, spec, {**env, "MLENGINE_ACCELERATOR_TYPE": accelerator}, job_dir=f"{bucket}/m/extras")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["iniconfig"] == version


def test_a_missing_or_broken_package_is_reported(image: Path, storage: Storage, bucket: str) -> None:
    env = {"STORAGE_EMULATOR_HOST": os.environ["STORAGE_EMULATOR_HOST"]}
    done = start(image, TrainingSpec("tiny.task", (f"{bucket}/packages/none-1.0.tar.gz",)), env)
    assert done.returncode == 1
    assert "may this job's service account read the bucket?" in done.stderr
    broken = io.BytesIO()
    with tarfile.open(fileobj=broken, mode="w:gz"):
        pass
    uri = local.put(storage, bucket, broken.getvalue(), "broken-1.0.tar.gz")
    done = start(image, TrainingSpec("tiny.task", (uri,)), env)
    assert done.returncode == 1
    assert "pip failed" in done.stderr
