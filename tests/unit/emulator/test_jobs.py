"""Requests of both faces as trainings: what is refused, and what the backend is handed."""

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
from mlengine.core.errors import ServiceRefusalError
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.emulator import messages, mlengine_jobs, vertex_jobs
from mlengine.emulator.adapter import MODULE


class Bucket:
    """As much of the storage as the adapter's package needs."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def exists(self, uri: str) -> bool:
        return uri in self.objects

    def create(self, uri: str, data: bytes) -> None:
        assert uri not in self.objects
        self.objects[uri] = data


def storage() -> Any:
    return Bucket()


def pool(**more: Any) -> dict[str, Any]:
    package = {"executorImageUri": "e", "packageUris": ["gs://pkgs/t-1.tar.gz"], "pythonModule": "t.task"}
    return {"machineSpec": {"machineType": "n1-standard-4"}, "replicaCount": "1", "pythonPackageSpec": package, **more}


def job(*pools: dict[str, Any], **more: Any) -> dict[str, Any]:
    return messages.read_custom_job({"displayName": "j", "jobSpec": {"workerPoolSpecs": list(pools), **more}})


def test_our_own_request_becomes_the_spec_it_was_made_from() -> None:
    spec = TrainingSpec(
        module="trainer.task",
        package_uris=("gs://bkt/packages/t-1.tar.gz", "gs://bkt/packages/u-1.whl"),
        args=("--batch_size", "100", "--job-dir-like", "x"),
        pools=(Pool(Role.CHIEF, 1, "n1-standard-8"), Pool(Role.PS, 2, "n1-standard-4", "NVIDIA_TESLA_T4", 1)),
        primary_name="master",
        max_running_seconds=60,
        env={"COLOUR": "blue"},
    )
    request = custom_job(Submission("a" * 40, "mnist_1", 3, "gs://bkt/m/j", spec), VertexOptions())
    read = messages.read_custom_job(json.loads(json.dumps(request.body)))
    vertex_jobs.check(read)
    submission, notes = vertex_jobs.submission(read, "123", storage(), None)
    # The request is in Vertex AI's words, and so is what is made of it: what was escaped is expanded again.
    assert submission.spec == replace(spec, expand_variables=True)
    assert (submission.job_id, submission.attempt, submission.job_dir) == ("123", 3, "gs://bkt/m/j")
    assert notes == []


@pytest.mark.parametrize("expands", [False, True])
def test_arguments_of_our_own_request_arrive_as_on_the_local_backend(expands: bool) -> None:
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


def test_a_foreign_package_runs_through_the_adapter() -> None:
    bucket = storage()
    empty: dict[str, Any] = {}
    submission, _ = vertex_jobs.submission(job(pool(), empty, pool(replicaCount="2")), "7", bucket, None)
    assert submission.spec.module == MODULE
    assert submission.spec.package_uris[0] == "gs://pkgs/t-1.tar.gz"
    assert list(bucket.objects) == [submission.spec.package_uris[1]]
    assert submission.spec.replicas == ((Role.CHIEF, 0), (Role.PS, 0), (Role.PS, 1))
    assert submission.job_dir == "gs://pkgs/mlengine-service/jobs/7"
    plan = json.loads(submission.spec.args[0])
    assert plan["pools"]["ps"]["command"] == ["python3", "-m", "t.task"]
    assert plan["dirs"] == {}
    vertex_jobs.submission(job(pool()), "8", bucket, None)
    assert len(bucket.objects) == 1


def test_a_job_without_any_bucket_is_refused_with_a_remedy() -> None:
    container = {"imageUri": "i", "command": ["python3"]}
    alone = job({"machineSpec": {"machineType": "m"}, "replicaCount": "1", "containerSpec": container})
    with pytest.raises(ServiceRefusalError, match="needs a bucket") as caught:
        vertex_jobs.submission(alone, "7", storage(), None)
    assert caught.value.status == "FAILED_PRECONDITION"
    assert vertex_jobs.submission(alone, "7", storage(), "gs://own")[0].job_dir.startswith("gs://own/")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"jobSpec": {"workerPoolSpecs": [pool()]}}, "display_name"),
        ({"displayName": "x" * 129, "jobSpec": {"workerPoolSpecs": [pool()]}}, "128"),
        ({"displayName": "j", "jobSpec": {"workerPoolSpecs": []}}, "at least one pool"),
        ({"displayName": "j", "jobSpec": {"workerPoolSpecs": [pool()] * 5}}, "at most 4"),
        ({"displayName": "j", "jobSpec": {"workerPoolSpecs": [pool(replicaCount="2")]}}, "replica_count must be 1"),
        ({"displayName": "j", "jobSpec": {"workerPoolSpecs": [pool(machineSpec={})]}}, "machine_type is required"),
        ({"displayName": "j", "labels": {"A": "b"}, "jobSpec": {"workerPoolSpecs": [pool()]}}, "not a label"),
        ({"displayName": "j", "jobSpec": {"workerPoolSpecs": [pool(pythonPackageSpec={})]}}, "executorImageUri"),
        (
            {
                "displayName": "j",
                "jobSpec": {"workerPoolSpecs": [pool()], "baseOutputDirectory": {"outputUriPrefix": "x"}},
            },
            "not a Cloud Storage URI",
        ),
        (
            {
                "displayName": "j",
                "jobSpec": {"workerPoolSpecs": [pool()], "baseOutputDirectory": {"outputUriPrefix": "gs://bkt/"}},
            },
            "is a whole bucket",
        ),
    ],
)
def test_what_vertex_refuses_at_once(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ServiceRefusalError, match=words):
        vertex_jobs.check(messages.read_custom_job(wrong))


def test_unknown_fields_are_refused_where_they_stand() -> None:
    with pytest.raises(ServiceRefusalError, match='Unknown name "colour" at \'custom_job'):
        messages.read_custom_job({"displayName": "j", "jobSpec": {"workerPoolSpecs": [pool(colour="blue")]}})
    with pytest.raises(ServiceRefusalError, match="Invalid JSON"):
        messages.read_custom_job({"displayName": 5})


def test_what_only_the_service_fills_in_is_dropped() -> None:
    read = messages.read_custom_job({"displayName": "j", "state": "JOB_STATE_SUCCEEDED", "name": "mine"})
    assert read == {"displayName": "j"}


def old(**more: Any) -> dict[str, Any]:
    fields = {"region": "r", "pythonModule": "t.task", "packageUris": ["gs://pkgs/t-1.tar.gz"], **more}
    return {"jobId": "census_1", "trainingInput": {name: value for name, value in fields.items() if value is not None}}


def test_ml_engine_with_a_job_dir_is_a_plain_training() -> None:
    read, spec = mlengine_jobs.read(
        old(jobDir="gs://bkt/out", args=["--a", "1"], scaleTier="STANDARD_1", runtimeVersion="1.0")
    )
    submission, notes = mlengine_jobs.submission(read, spec, "p", storage(), None)
    assert submission.spec.module == "t.task"
    assert submission.job_dir == "gs://bkt/out"
    assert submission.spec.primary_name == "master"
    assert submission.spec.count(Role.WORKER) == 4
    assert "runtimeVersion" in notes[0]


def test_a_job_id_that_is_used_again_is_another_job_to_the_backend() -> None:
    """The service's state may have been deleted, or lie elsewhere, while the backend still knows the first."""
    read, spec = mlengine_jobs.read(old(jobDir="gs://bkt/out"))
    keys = {mlengine_jobs.submission(read, spec, "p", storage(), None)[0].key for _ in range(2)}
    assert len(keys) == 2


def test_ml_engine_without_a_job_dir_gave_the_trainer_none() -> None:
    read, spec = mlengine_jobs.read(old(args=["--a", "1"]))
    submission, _ = mlengine_jobs.submission(read, spec, "p", storage(), None)
    plan = json.loads(submission.spec.args[0])
    assert plan["pools"]["chief"]["command"] == ["python3", "-m", "t.task", "--a", "1"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"jobId": "j", "predictionInput": {}}, "predictionInput"),
        ({"trainingInput": {"region": "r"}}, "job id is required"),
        ({"jobId": "j"}, "training_input"),
        ({**old(), "colour": "blue"}, 'Unknown name "colour"'),
        (old(region=None), "region is required"),
        (old(packageUris=None), "packages or an image"),
        (old(workerCount=3), "workerCount"),
        ({**old(), "jobId": "1-x"}, "not a job id"),
        (old(jobDir="gs://bkt"), "is a whole bucket"),
        (old(jobDir="gs://bkt/"), "is a whole bucket"),
    ],
)
def test_what_ml_engine_refuses_at_once(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ServiceRefusalError, match=words) as caught:
        mlengine_jobs.read(wrong)
    assert caught.value.status in {"INVALID_ARGUMENT", "UNIMPLEMENTED"}
