"""Custom jobs: rejected requests, and the submission that the backend gets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mlengine.backends import Submission
from mlengine.backends.local.replica_env import arguments
from mlengine.backends.vertex.options import VertexOptions
from mlengine.backends.vertex.request import custom_job
from mlengine.core.cluster import tf_config
from mlengine.core.errors import EmulatorApiError, StorageError
from mlengine.core.layout import check_model_name
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.emulator import messages, vertex_checks, vertex_jobs
from mlengine.emulator.adapter import FOLDER, MODULE
from tests.support.memory_storage import MemoryStorage


def storage() -> Any:
    return MemoryStorage()


def package(**more: Any) -> dict[str, Any]:
    return {"executorImageUri": "e", "packageUris": ["gs://pkgs/t-1.tar.gz"], "pythonModule": "t.task", **more}


def machine(**more: Any) -> dict[str, Any]:
    return {"machineSpec": {"machineType": "n1-standard-4", **more}, "replicaCount": "1"}


def pool(**more: Any) -> dict[str, Any]:
    return {**machine(), "pythonPackageSpec": package(), **more}


def container(**more: Any) -> dict[str, Any]:
    return {**machine(), "containerSpec": {"imageUri": "i", "command": ["python3"], **more}}


def gpus(**accelerator: Any) -> dict[str, Any]:
    return {**machine(**accelerator), "pythonPackageSpec": package()}


def body(*pools: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"displayName": "j", "jobSpec": {"workerPoolSpecs": list(pools), **more}}


def job(*pools: dict[str, Any], **more: Any) -> dict[str, Any]:
    return messages.read_custom_job(body(*pools, **more))


@pytest.mark.parametrize("job_dir_arg", ["--job-dir", "--output", ""])
def test_a_job_of_mlengines_backend_becomes_its_original_spec(job_dir_arg: str) -> None:
    spec = TrainingSpec(
        module="trainer.task",
        package_uris=("gs://bkt/packages/t-1.tar.gz", "gs://bkt/packages/u-1.whl"),
        args=("--batch_size", "100", "--job-dir-like", "x"),
        pools=(Pool(Role.CHIEF, 1, "n1-standard-8"), Pool(Role.PS, 2, "n1-standard-4", "NVIDIA_TESLA_T4", 1)),
        primary_name="master",
        max_running_seconds=60,
        env={"COLOUR": "blue"},
        job_dir_arg=job_dir_arg,
    )
    request = custom_job(Submission("a" * 40, "mnist_1", 3, "gs://bkt/m/j", spec), VertexOptions())
    read = messages.read_custom_job(json.loads(json.dumps(request.body)))
    vertex_checks.check(read)
    submission, notes = vertex_jobs.submission(read, "123", storage(), None)
    # Vertex AI expands $(VAR), so expansion must turn the escaped arguments into the original ones.
    assert submission.spec == replace(spec, expand_variables=True)
    assert (submission.job_id, submission.attempt, submission.job_dir) == ("123", 3, "gs://bkt/m/j")
    assert notes == []


@pytest.mark.parametrize("expands", [False, True])
def test_arguments_are_passed_as_on_the_local_backend(expands: bool) -> None:
    spec = TrainingSpec(
        "trainer.task",
        ("gs://bkt/packages/t-1.tar.gz",),
        ("$(AIP_CHECKPOINT_DIR)", "$(OWN)", "$$(OWN)", "cost $5 $$", "$(UNKNOWN)"),
        env={"OWN": "<$(AIP_MODEL_DIR)>"},
        expand_variables=expands,
    )
    made = Submission("a" * 40, "mnist_1", 1, "gs://bkt/m/j", spec)
    request = messages.read_custom_job(json.loads(json.dumps(custom_job(made, VertexOptions()).body)))
    taken = vertex_jobs.submission(request, "123", storage(), None)[0]
    env = {"AIP_MODEL_DIR": "the service's", "AIP_CHECKPOINT_DIR": "the service's"}
    assert arguments(taken, env) == arguments(made, env)


def test_a_job_of_one_replica_keeps_its_tf_config() -> None:
    spec = TrainingSpec(
        "t.task",
        ("gs://bkt/t-1.tar.gz",),
        pools=(Pool(Role.CHIEF, 1, "n1-standard-4"),),
        primary_name="master",
        single_replica_tf_config=True,
        expand_variables=True,
    )
    request = custom_job(Submission("a" * 40, "mnist_1", 1, "gs://bkt/m/j", spec), VertexOptions())
    read = messages.read_custom_job(json.loads(json.dumps(request.body)))
    taken = vertex_jobs.submission(read, "123", storage(), None)[0].spec
    assert replace(taken, source={}) == spec
    alone = {Role.CHIEF: ["127.0.0.1:1"]}
    assert tf_config(taken, alone, Role.CHIEF, 0) == tf_config(spec, alone, Role.CHIEF, 0)


def test_replicas_get_no_variables_for_missing_accelerators() -> None:
    given = [
        {"name": "COLOUR", "value": "blue"},
        {"name": "MLENGINE_ACCELERATOR_TYPE", "value": "NVIDIA_L4"},
        {"name": "MLENGINE_ACCELERATOR_COUNT", "value": "1"},
    ]
    for one in (container(env=given), pool(pythonPackageSpec=package(env=given))):
        spec = vertex_jobs.submission(job(one), "1", storage(), "gs://bkt")[0].spec
        assert json.loads(spec.args[0])["pools"]["chief"]["env"] == given[:1]


@pytest.mark.parametrize("args", [['{"module"'], ['{"module": 1}'], ['{"module"', "--job-dir", "x"]])
def test_a_job_that_only_resembles_mlengines_is_run_unchanged(args: list[str]) -> None:
    similar = job(
        container(command=["python3", "-c", "pass"], args=args), baseOutputDirectory={"outputUriPrefix": "gs://bkt/o"}
    )
    assert vertex_jobs.submission(similar, "1", storage(), None)[0].spec.module == MODULE


def test_a_package_of_another_client_runs_through_the_adapter() -> None:
    bucket = storage()
    empty: dict[str, Any] = {}
    submission, _ = vertex_jobs.submission(job(pool(), empty, pool(replicaCount="2")), "7", bucket, None)
    assert submission.spec.module == MODULE
    assert submission.spec.package_uris[0] == "gs://pkgs/t-1.tar.gz"
    assert list(bucket.objects) == [submission.spec.package_uris[1]]
    assert submission.spec.replicas == ((Role.CHIEF, 0), (Role.PS, 0), (Role.PS, 1))
    assert submission.job_dir == "gs://pkgs/mlengine-emulator/jobs/7"
    plan = json.loads(submission.spec.args[0])
    assert plan["pools"]["ps"]["command"] == ["python3", "-m", "t.task"]
    assert plan["dirs"] == {}
    vertex_jobs.submission(job(pool()), "8", bucket, None)
    assert len(bucket.objects) == 1


def test_the_emulators_folder_is_not_a_valid_model_name() -> None:
    with pytest.raises(StorageError, match="not a model name"):
        check_model_name(FOLDER)


def test_a_job_without_a_bucket_is_rejected_with_a_hint() -> None:
    alone = job(container())
    with pytest.raises(EmulatorApiError, match="needs a bucket") as caught:
        vertex_jobs.submission(alone, "7", storage(), None)
    assert caught.value.status == "FAILED_PRECONDITION"
    assert vertex_jobs.submission(alone, "7", storage(), "gs://own")[0].job_dir.startswith("gs://own/")


def test_an_image_that_contains_its_command_is_rejected() -> None:
    with pytest.raises(EmulatorApiError, match="does not run images, and i contains the command"):
        vertex_jobs.submission(job(container(command=[])), "7", storage(), "gs://own")
