"""Tests the emulator with Google's own clients: its libraries, Airflow's Google provider, and gcloud."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import site
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.vertex import location
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.backends.vertex.jobs import tensorboard_url
from mlengine.backends.vertex.location import anonymous_credentials
from mlengine.core.job import JobHandle
from mlengine.core.times import seconds
from mlengine.testing.emulator import RunningEmulator, running
from mlengine.testing.gcs import GcsServer
from tests.support import local_jobs
from tests.support.google_clients import (
    NUMBERED_PARENT,
    PARENT,
    entries,
    init_sdk,
    job_client,
    package_job,
    until_ended,
)

pytestmark = pytest.mark.integration
Make = Callable[..., LocalBackend]


@pytest.fixture
def emulator(make_backend: Make, tmp_path: Path) -> Iterator[RunningEmulator]:
    with running(
        tmp_path / "emulator", backend=make_backend(max_chief_restarts=0, max_restarts=0), grpc_port=0
    ) as started:
        yield started


def test_the_generated_client_runs_a_job(emulator: RunningEmulator, actor: str, bucket: str) -> None:
    from google.api_core import exceptions

    client = job_client(emulator)
    show = (
        "env = os.environ; spec = json.loads(env['CLUSTER_SPEC']);"
        "say('in', env['CLOUD_ML_PROJECT_ID'], env['CLOUD_ML_REGION']);"
        "say(sorted(spec['cluster']), spec['task'], args.job_dir, env['COLOUR'], env['AIP_CHECKPOINT_DIR'])"
    )
    made = client.create_custom_job(parent=PARENT, custom_job=package_job(actor, bucket, show, workers=1))
    assert made.name.startswith(f"{NUMBERED_PARENT}/customJobs/")
    assert made.labels["team"] == "vision"
    ended = until_ended(lambda: client.get_custom_job(name=made.name))
    assert ended.state.name == "JOB_STATE_SUCCEEDED"
    assert made.create_time <= ended.start_time <= ended.end_time
    # Vertex AI adds no --job-dir, and its checkpoint directory is not train/.
    lines = [entry["jsonPayload"]["message"] for entry in entries(emulator, made.name)]
    expected = (
        f"['workerpool0', 'workerpool1'] {{'type': 'workerpool0', 'index': 0}} None blue {bucket}/out/checkpoints/"
    )
    assert expected in lines
    _, number, _, region = NUMBERED_PARENT.split("/")
    assert f"in {number} {region}" in lines

    failing = client.create_custom_job(parent=PARENT, custom_job=package_job(actor, bucket, "sys.exit(7)"))
    ended = until_ended(lambda: client.get_custom_job(name=failing.name))
    assert ended.state.name == "JOB_STATE_FAILED"
    assert ended.error.message.startswith("The replica workerpool0-0 exited with a non-zero status of 7.")

    endless = client.create_custom_job(parent=PARENT, custom_job=package_job(actor, bucket, "until('/nowhere')"))
    listed = list(client.list_custom_jobs(request={"parent": PARENT, "page_size": 2}))
    assert [job.name for job in listed] == [endless.name, failing.name, made.name]
    query = 'state="JOB_STATE_FAILED" AND labels.team:* AND NOT display_name="other"'
    found = client.list_custom_jobs(request={"parent": PARENT, "filter": query, "read_mask": "name,state"})
    assert [(job.name, job.display_name) for job in found] == [(failing.name, "")]
    client.cancel_custom_job(name=endless.name)
    ended = until_ended(lambda: client.get_custom_job(name=endless.name))
    assert (ended.state.name, ended.error.code) == ("JOB_STATE_CANCELLED", 1)
    with pytest.raises(exceptions.BadRequest, match="is in state JOB_STATE_CANCELLED and cannot be canceled"):
        client.cancel_custom_job(name=endless.name)
    client.delete_custom_job(name=endless.name).result(timeout=60)
    with pytest.raises(exceptions.NotFound):
        client.get_custom_job(name=endless.name)
    with pytest.raises(exceptions.BadRequest, match="display_name"):
        client.create_custom_job(parent=PARENT, custom_job={"job_spec": {}})
    with pytest.raises(exceptions.BadRequest, match="Invalid filter"):
        list(client.list_custom_jobs(request={"parent": PARENT, "filter": "colour=blue"}))


def test_console_links_equal_those_of_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    from google.cloud.aiplatform.utils import console_utils  # noqa: TID251 - Google's client

    name = "projects/test-project/locations/europe-west1/customJobs/1234"
    monkeypatch.setattr(location, "default_credentials", lambda: (anonymous_credentials(), "test-project"))
    monkeypatch.delenv("AIRFLOW__MLENGINE__VERTEX_ENDPOINT", raising=False)
    url = VertexBackend().console_url(JobHandle("vertex", name, "j", 1, "gs://bkt/m/j"))
    assert url == console_utils.custom_job_console_uri(name)
    instance = "projects/test-project/locations/europe-west1/tensorboards/7"
    assert tensorboard_url(instance, name) == console_utils.custom_job_tensorboard_console_uri(instance, name)


def test_the_high_level_sdk_runs_jobs(emulator: RunningEmulator, bucket: str) -> None:
    """``aiplatform.CustomJob`` with a container whose command is Python. No image is pulled."""
    from google.cloud import aiplatform  # noqa: TID251 - Google's client

    init_sdk(emulator, bucket)
    container = {
        "image_uri": "docker.example/any",
        "command": ["python3", "-c", "import os, sys; print(sys.argv[1:], os.environ['CLUSTER_SPEC'][:11])"],
        "args": ["--model=$(AIP_MODEL_DIR)", "$$(NAME)"],
    }
    pool = {"machine_spec": {"machine_type": "n1-standard-4"}, "replica_count": 1, "container_spec": container}
    job = aiplatform.CustomJob(
        display_name="sdk", worker_pool_specs=[pool], base_output_dir=f"{bucket}/out", labels={"team": "sdk"}
    )
    job.run(sync=True)
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    lines = [entry["jsonPayload"]["message"] for entry in entries(emulator, job.resource_name)]
    assert f"['--model={bucket}/out/model/', '$(NAME)'] {{\"cluster\":" in lines
    assert "image docker.example/any is not pulled: its command runs on this machine" in lines


SCRIPT = """
import argparse, os, sys
import thing
parser = argparse.ArgumentParser()
parser.add_argument("--steps")
print("trained", parser.parse_args().steps, "steps in", sys.prefix, "with", thing.__file__)
"""


def installed(folders: list[Path]) -> set[str]:
    return {str(path) for folder in folders if folder.exists() for path in folder.iterdir()}


def test_a_local_script_of_the_sdk_does_not_change_the_users_python(
    emulator: RunningEmulator, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's command is ``pip install --upgrade pip && pip3 install --user /gcs/… && python3 -m …``."""
    from google.cloud import aiplatform  # noqa: TID251 - Google's client

    home, fake_bin = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    fake_bin.mkdir()
    for name in ("pip", "pip3", "python", "python3"):
        (fake_bin / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/host-{name}-was-used\n")
        (fake_bin / name).chmod(0o755)
    (wheels := tmp_path / "wheels").mkdir()
    local_jobs.thing_wheel(wheels)
    (tmp_path / "task.py").write_text(SCRIPT)
    user_site = [Path(site.getusersitepackages()), Path(site.getuserbase()) / "bin"]
    folders = [Path(path) for path in site.getsitepackages()] + [Path(sys.prefix) / "bin"] + user_site
    before = installed(folders)
    monkeypatch.setenv("PATH", f"{fake_bin}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(home))
    init_sdk(emulator, bucket)
    job = aiplatform.CustomJob.from_local_script(
        display_name="script",
        script_path=str(tmp_path / "task.py"),
        container_uri="docker.example/any",
        args=["--steps", "7"],
        requirements=[f"thing @ file://{next(wheels.iterdir())}"],
    )
    job.run(sync=True)
    lines = [entry["jsonPayload"]["message"] for entry in entries(emulator, job.resource_name)]
    assert job.state.name == "JOB_STATE_SUCCEEDED", lines
    (trained,) = (line for line in lines if line.startswith("trained 7 steps"))
    assert trained.count("/.container/python") == 2
    assert any("is a copy of gs://" in line for line in lines)
    assert installed(folders) == before
    assert {path.name for path in home.iterdir()} <= {".cache"}  # uv's cache, for the job's environment
    assert list(tmp_path.glob("host-*-was-used")) == []
    assert not list(emulator.server.engine.objects_dir(("x", "", "", "")).parent.iterdir()), (
        "the job's copies were not removed"
    )


def test_the_google_providers_operator_and_hook_run_a_job(
    emulator: RunningEmulator, actor: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.google.cloud.hooks.vertex_ai import custom_job as hooks
    from airflow.providers.google.cloud.operators.vertex_ai.custom_job import (  # noqa: TID251 - Google's client
        CreateCustomJobOperator,
    )

    # The provider has no setting for an endpoint, so this method must be patched.
    monkeypatch.setattr(hooks.CustomJobHook, "get_job_service_client", lambda self, region=None: job_client(emulator))
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", emulator.connection)
    operator = CreateCustomJobOperator(
        task_id="train",
        project_id="test-project",
        region="us-central1",
        custom_job=package_job(actor, bucket, "say('by the provider')"),
        poll_interval=1,
    )
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}), task=operator)
    context: Any = {"ti": ti, "task": operator, "task_instance": ti}
    job = operator.execute(context)
    assert job["name"].endswith(pushed["custom_job_id"])
    lines = [entry["jsonPayload"]["message"] for entry in entries(emulator, job["name"])]
    assert "by the provider" in lines


def test_the_google_providers_trigger_works_over_grpc(
    emulator: RunningEmulator, actor: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deferred ``CreateCustomJobOperator`` waits with this trigger, which supports only gRPC."""
    import grpc  # type: ignore[import-untyped,unused-ignore]
    from airflow.providers.google.cloud.hooks.vertex_ai import custom_job as hooks
    from airflow.providers.google.cloud.triggers.vertex_ai import CustomJobTrigger
    from google.api_core import exceptions
    from google.cloud import aiplatform_v1  # noqa: TID251 - Google's client
    from google.cloud.aiplatform_v1.services import job_service  # noqa: TID251

    sync, asynchronous = job_service.JobServiceClient, aiplatform_v1.JobServiceAsyncClient

    assert emulator.server.grpc is not None
    target = emulator.server.grpc.target

    async def client_of(*_: Any, **__: Any) -> Any:
        transport = asynchronous.get_transport_class("grpc_asyncio")
        return asynchronous(transport=transport(channel=grpc.aio.insecure_channel(target)))

    monkeypatch.setattr(hooks.CustomJobAsyncHook, "get_job_service_client", client_of)
    client: Any = sync(transport=sync.get_transport_class("grpc")(channel=grpc.insecure_channel(target)))
    made = client.create_custom_job(parent=PARENT, custom_job=package_job(actor, bucket, "say('deferred')"))
    trigger = CustomJobTrigger(
        gcp_conn_id="google_cloud_default",
        project_id="test-project",
        location="us-central1",
        custom_job_id=made.name.split("/")[-1],
        poll_interval=1,
    )

    async def first_event() -> Any:
        return await anext(trigger.run())

    event = asyncio.run(first_event())
    assert event.payload["status"] == "success", event.payload
    emulator.script("GetCustomJob", "status", status="UNAVAILABLE")
    with pytest.raises(exceptions.ServiceUnavailable):
        client.get_custom_job(name=made.name)
    assert client.get_custom_job(name=made.name).state.name == "JOB_STATE_SUCCEEDED"
    listed = client.list_custom_jobs(request={"parent": PARENT, "filter": "labels.team=vision", "page_size": 1})
    assert [job.name for job in listed] == [made.name]
    emulator.script("ListCustomJobs", "quota", per_minute=1)
    client.list_custom_jobs(parent=PARENT, retry=None)
    with pytest.raises(exceptions.ResourceExhausted, match="Quota exceeded"):
        client.list_custom_jobs(parent=PARENT, retry=None)
    with pytest.raises(exceptions.FailedPrecondition):
        client.cancel_custom_job(name=made.name)
    client.delete_custom_job(name=made.name).result(timeout=60)
    with pytest.raises(exceptions.NotFound):
        client.get_custom_job(name=made.name)


def test_a_client_built_from_discovery_runs_a_job(emulator: RunningEmulator, actor: str, bucket: str) -> None:
    """ML Engine's former Python client: ``discovery.build("ml", "v1")``."""
    import httplib2  # type: ignore[import-untyped,unused-ignore]
    from googleapiclient import discovery, errors  # type: ignore[import-untyped,unused-ignore]

    ml = discovery.build(
        "ml",
        "v1",
        http=httplib2.Http(timeout=30),
        discoveryServiceUrl=f"{emulator.url}/discovery/v1/apis/{{api}}/{{apiVersion}}/rest",
        client_options={"api_endpoint": emulator.url},
        cache_discovery=False,
        static_discovery=False,
    )
    jobs = ml.projects().jobs()
    body = {
        "jobId": "census_1",
        "labels": {"team": "old"},
        "trainingInput": {
            "region": "us-central1",
            "pythonModule": "tiny.task",
            "packageUris": [actor],
            "args": ["--chief", "say('job dir is', args.job_dir)"],
        },
    }
    made = jobs.create(parent="projects/test-project", body=body).execute()
    assert made["state"] == "QUEUED"
    with pytest.raises(errors.HttpError) as taken:
        jobs.create(parent="projects/test-project", body=body).execute()
    assert taken.value.status_code == 409
    name = "projects/test-project/jobs/census_1"
    patched = jobs.patch(name=name, updateMask="labels", body={"labels": {"team": "new"}}).execute()
    assert patched["labels"] == {"team": "new"}
    limit = time.monotonic() + 60
    while "endTime" not in (job := jobs.get(name=name).execute()):
        assert time.monotonic() < limit
        time.sleep(0.2)
    assert job["state"] == "SUCCEEDED"
    assert seconds(job["createTime"]) <= seconds(job["startTime"]) <= seconds(job["endTime"])
    # Without a jobDir, ML Engine did not pass --job-dir to the trainer.
    assert "job dir is None" in [entry["jsonPayload"]["message"] for entry in entries(emulator, "census_1")]
    listed = jobs.list(parent="projects/test-project", filter="labels.team=new", pageSize=1).execute()
    assert [job["jobId"] for job in listed["jobs"]] == ["census_1"]
    with pytest.raises(errors.HttpError, match="has ended"):
        jobs.cancel(name=name, body={}).execute()
    wrong = {"jobId": "x", "trainingInput": {"pythonModul": "a"}}
    with pytest.raises(errors.HttpError, match="pythonModul"):
        jobs.create(parent="projects/test-project", body=wrong).execute()


GCLOUD = shutil.which("gcloud")
needs_gcloud = pytest.mark.skipif(GCLOUD is None, reason="gcloud is not installed")


@pytest.fixture
def gcloud(emulator: RunningEmulator, gcs_server: GcsServer, tmp_path: Path) -> Callable[..., str]:
    """Runs gcloud with its endpoints on loopback, and returns its output."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CLOUDSDK_", "VIRTUAL"))}
    env = {
        **own,
        **emulator.env,
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{gcs_server.url}/storage/v1/",
        "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
    }

    def run(*words: str, fails: bool = False, data: bool = False) -> str:
        done = subprocess.run(
            ["gcloud", *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1500, check=False
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout if data else done.stdout + done.stderr

    return run


# gcloud reads only lines that are at least 5 s old. After the job has ended, it stops after two polls without lines.
TRAINER = """
import argparse, json, os, time
from trainer import model
parser = argparse.ArgumentParser()
parser.add_argument("--job-dir")
parser.add_argument("--max_steps", type=int)
args = parser.parse_args()
config = json.loads(os.environ["TF_CONFIG"])
print(model.WORDS, sorted(config["cluster"]), config["task"]["type"], args.max_steps, args.job_dir, flush=True)
time.sleep(12)
"""
CONFIG = """
trainingInput:
  scaleTier: CUSTOM
  masterType: complex_model_m
  workerType: complex_model_m
  parameterServerType: large_model
  workerCount: 2
  parameterServerCount: 0
"""


@needs_gcloud
def test_gcloud_ml_engine_commands_of_old_articles_work(
    gcloud: Callable[..., str], bucket: str, tmp_path: Path
) -> None:
    """``gcloud ml-engine jobs submit training``, as it was typed in 2017."""
    package = tmp_path / "trainer"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "task.py").write_text(TRAINER)
    (package / "model.py").write_text("WORDS = 'the old words'\n")
    (tmp_path / "config.yaml").write_text(CONFIG)
    submit = [
        *("ml-engine", "jobs", "submit", "training", "mnist_1", "--package-path", "trainer"),
        *("--module-name", "trainer.task", "--staging-bucket", bucket, "--job-dir", f"{bucket}/mnist/mnist_1"),
        *("--region", "us-central1", "--config", "config.yaml", "--runtime-version", "1.0"),
        *("--", "--max_steps", "10"),
    ]
    assert "submitted successfully" in gcloud(*submit)
    assert "already exists" in gcloud(*submit, fails=True)
    said = gcloud("ml-engine", "jobs", "stream-logs", "mnist_1", "--polling-interval", "2")
    assert f"the old words ['master', 'worker'] master 10 {bucket}/mnist/mnist_1" in said
    assert "worker-replica-1" in said
    described = json.loads(gcloud("ml-engine", "jobs", "describe", "mnist_1", "--format", "json", data=True))
    assert described["state"] == "SUCCEEDED"
    assert described["trainingInput"]["workerCount"] == "2"


@needs_gcloud
def test_gcloud_accepts_built_packages_and_the_other_job_commands(
    gcloud: Callable[..., str], emulator: RunningEmulator, bucket: str, tmp_path: Path
) -> None:
    """Tests ``--packages``, and the other commands for jobs: list, update, cancel."""
    (tmp_path / "tiny-1.0.tar.gz").write_bytes(local_jobs.sdist(local_jobs.ACTOR))
    jobs = ("ml-engine", "jobs")
    submit = [
        *(*jobs, "submit", "training", "census_1", "--packages", "tiny-1.0.tar.gz", "--module-name", "tiny.task"),
        *("--staging-bucket", bucket, "--region", "us-central1", "--labels", "team=old"),
        *("--", "--chief", "until('/nowhere')"),
    ]
    gcloud(*submit)
    assert gcloud(*jobs, "list", "--filter", "jobId:census", "--format", "value(jobId)", data=True) == "census_1\n"
    gcloud(*jobs, "update", "census_1", "--update-labels", "team=new")
    gcloud(*jobs, "cancel", "census_1")
    limit = time.monotonic() + 60
    while emulator.server.engine.store.all()[0].state.value != "CANCELLED":
        assert time.monotonic() < limit
        time.sleep(0.2)
    described = json.loads(gcloud(*jobs, "describe", "census_1", "--format", "json", data=True))
    assert (described["state"], described["labels"]) == ("CANCELLED", {"team": "new"})
    assert described["trainingInput"]["packageUris"][0].endswith("/tiny-1.0.tar.gz")


STREAM = ("--region", "us-central1", "--polling-interval", "2")


@needs_gcloud
def test_gcloud_ai_custom_jobs_commands_work(
    gcloud: Callable[..., str], emulator: RunningEmulator, actor: str, bucket: str, tmp_path: Path
) -> None:
    do = "say('to stdout'); print('to stderr', file=sys.stderr, flush=True); until('/nowhere')"
    spec = package_job(actor, bucket, do)["job_spec"]
    (tmp_path / "job.yaml").write_text(json.dumps(spec))
    region = ("--region", "us-central1")
    gcloud("ai", "custom-jobs", "create", *region, "--display-name", "by gcloud", "--config", "job.yaml")
    name = gcloud("ai", "custom-jobs", "list", *region, "--format", "value(name)", data=True).strip()
    limit = time.monotonic() + 60
    while "to stderr" not in [entry["jsonPayload"]["message"] for entry in entries(emulator, name)]:
        assert time.monotonic() < limit
        time.sleep(0.2)
    gcloud("ai", "custom-jobs", "cancel", name)
    client = job_client(emulator)
    until_ended(lambda: client.get_custom_job(name=name))
    messages = [line.split() for line in gcloud("ai", "custom-jobs", "stream-logs", name, *STREAM).splitlines()]
    lines = [(line[0], line[4], " ".join(line[5:])) for line in messages if len(line) > 5]
    assert ("INFO", "service", "Job is running.") in lines
    assert ("INFO", "workerpool0-0", "to stdout") in lines
    assert ("ERROR", "workerpool0-0", "to stderr") in lines
    assert "JOB_STATE_CANCELLED" in gcloud("ai", "custom-jobs", "describe", name)
