"""ML Engine's jobs: rejected requests, and the submission that the backend gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlengine.core.cluster import tf_config
from mlengine.core.errors import EmulatorApiError
from mlengine.core.spec import Role
from mlengine.emulator import mlengine_jobs
from tests.support.memory_storage import MemoryStorage


def storage() -> Any:
    return MemoryStorage()


def job(**more: Any) -> dict[str, Any]:
    fields = {"region": "r", "pythonModule": "t.task", "packageUris": ["gs://pkgs/t-1.tar.gz"], **more}
    return {"jobId": "census_1", "trainingInput": {name: value for name, value in fields.items() if value is not None}}


def custom(**more: Any) -> dict[str, Any]:
    return job(scaleTier="CUSTOM", masterType="standard", **more)


def image(**config: Any) -> dict[str, Any]:
    return custom(packageUris=None, pythonModule=None, masterConfig={"imageUri": "i", **config})


def test_a_job_with_a_job_dir_becomes_a_plain_training_spec() -> None:
    read, spec = mlengine_jobs.read(
        job(jobDir="gs://bkt/out", args=["--a", "1"], scaleTier="STANDARD_1", runtimeVersion="1.0")
    )
    submission, notes = mlengine_jobs.submission(read, spec, "p", storage(), None)
    assert submission.spec.module == "t.task"
    assert submission.job_dir == "gs://bkt/out"
    assert submission.spec.primary_name == "master"
    assert submission.spec.count(Role.WORKER) == 4
    assert "runtimeVersion" in notes[0]


def test_a_reused_job_id_is_a_new_job_for_the_backend() -> None:
    """The backend may still know the first job of that id after the emulator's state was deleted."""
    read, spec = mlengine_jobs.read(job(jobDir="gs://bkt/out"))
    keys = {mlengine_jobs.submission(read, spec, "p", storage(), None)[0].key for _ in range(2)}
    assert len(keys) == 2


def test_a_job_without_a_job_dir_gets_no_job_dir_argument() -> None:
    read, spec = mlengine_jobs.read(job(args=["--a", "1"]))
    submission, _ = mlengine_jobs.submission(read, spec, "p", storage(), None)
    plan = json.loads(submission.spec.args[0])
    assert plan["pools"]["chief"]["command"] == ["python3", "-m", "t.task", "--a", "1"]


@pytest.mark.parametrize(
    "data",
    [
        job(),
        job(jobDir="gs://bkt/out"),
        job(runtimeVersion="2.11", pythonVersion="3.7"),
        image(containerCommand=["python3", "-m", "x"]),
    ],
)
def test_a_single_replica_gets_a_tf_config(data: dict[str, Any]) -> None:
    """ML Engine did the same, and old trainers read ``TF_CONFIG`` unconditionally."""
    read, spec = mlengine_jobs.read(data)
    submission, _ = mlengine_jobs.submission(read, spec, "p", storage(), "gs://own")
    config = tf_config(submission.spec, {Role.CHIEF: ["127.0.0.1:1"]}, Role.CHIEF, 0)
    name = "chief" if "runtimeVersion" in data["trainingInput"] else "master"
    assert config["cluster"] == {name: ["127.0.0.1:1"]}
    assert config["task"] == {"type": name, "index": 0}


@pytest.mark.parametrize("names", [("containerCommand", "containerArgs"), ("container_command", "container_args")])
def test_an_image_runs_its_command(names: tuple[str, str]) -> None:
    read, spec = mlengine_jobs.read(image(**{names[0]: ["python3", "-m", "x"], names[1]: ["--y"]}))
    submission, _ = mlengine_jobs.submission(read, spec, "p", storage(), "gs://own")
    assert json.loads(submission.spec.args[0])["pools"]["chief"]["command"] == ["python3", "-m", "x", "--y"]


def test_replicas_that_run_the_chiefs_image_run_its_command() -> None:
    data = image(containerCommand=["python3", "-m", "x"])
    worker = {"workerType": "standard", "workerCount": 1, "workerConfig": {"diskConfig": {"bootDiskSizeGb": 200}}}
    read, spec = mlengine_jobs.read({**data, "trainingInput": {**data["trainingInput"], **worker}})
    submission, _ = mlengine_jobs.submission(read, spec, "p", storage(), "gs://own")
    assert json.loads(submission.spec.args[0])["pools"]["worker"]["command"] == ["python3", "-m", "x"]


@pytest.mark.parametrize("config", [{"containerCommand": 5}, {"containerCommand": "sh"}, {"containerCommand": [5]}])
def test_an_invalid_command_is_rejected(config: dict[str, Any]) -> None:
    with pytest.raises(
        EmulatorApiError, match=r"Field: job\.training_input\.master_config\.container_command(\[0\])? Error: "
    ):
        mlengine_jobs.read(image(**config))


def test_an_image_that_contains_its_command_is_rejected() -> None:
    read, spec = mlengine_jobs.read(image())
    with pytest.raises(EmulatorApiError, match="The emulator does not run images"):
        mlengine_jobs.submission(read, spec, "p", storage(), "gs://own")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"jobId": "j", "predictionInput": {}}, "predictionInput"),
        ({"trainingInput": {"region": "r"}}, "job id is required"),
        ({"jobId": "j"}, "training_input"),
        ({"jobId": "j", "trainingInput": 5}, "mapping"),
        ({"jobId": 5, "trainingInput": {"region": "r"}}, "Field: job.job_id Error: "),
        ({**job(), "colour": "blue"}, 'Unknown name "colour"'),
        ({**job(), "labels": {"A": "b"}}, "label"),
        (job(region=None), "region is required"),
        (job(packageUris=None), "packages or an image"),
        (job(workerCount=3), "worker_count"),
        (custom(workerType="standard", workerCount="-5"), "Field: job.training_input.worker_count Error: is -5"),
        (custom(workerType="standard", workerCount=str(10**9)), "training_input.worker_count"),
        (job(scheduling={"maxRunningTime": "-5s"}), "Field: job.training_input.scheduling.max_running_time Error: "),
        ({**job(), "jobId": "1-x"}, "not a job id"),
        (job(jobDir="gs://bkt/"), "is a bucket without a path"),
    ],
)
def test_invalid_jobs_are_rejected(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(EmulatorApiError, match=message) as caught:
        mlengine_jobs.read(wrong)
    assert caught.value.status in {"INVALID_ARGUMENT", "UNIMPLEMENTED"}
