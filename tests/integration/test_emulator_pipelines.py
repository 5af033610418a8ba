"""Tests training pipelines on the emulator with the SDK's training jobs and the operators of Google's provider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.vertex.location import anonymous_credentials
from mlengine.testing.emulator import RunningEmulator, running
from tests.support.google_clients import (
    EXECUTOR,
    NUMBERED_PARENT,
    PARENT,
    PROJECT,
    REGION,
    entries,
    init_sdk,
    job_client,
    package_job,
    until_ended,
)

pytestmark = pytest.mark.integration
Make = Callable[..., LocalBackend]
SERVING = "eu.gcr.io/own/server:1"
DEFINITION = "gs://google-cloud-aiplatform/schema/trainingjob/definition/custom_task_1.0.0.yaml"
# Writes a file to AIP_MODEL_DIR.
SAVE = """
import os, urllib.request
bucket, _, folder = os.environ["AIP_MODEL_DIR"].removeprefix("gs://").partition("/")
url = os.environ["STORAGE_EMULATOR_HOST"] + f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={folder}model.json"
urllib.request.urlopen(urllib.request.Request(url, data=b"{}", method="POST")).read()
print("saved to", os.environ["AIP_MODEL_DIR"], flush=True)
"""


@pytest.fixture
def emulator(
    make_backend: Make, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningEmulator]:
    from google.cloud.aiplatform import training_jobs  # noqa: TID251 - Google's client

    monkeypatch.setattr(training_jobs, "_JOB_WAIT_TIME", 0.3)  # seconds between its polls
    with running(
        tmp_path / "emulator", backend=make_backend(max_chief_restarts=0, max_restarts=0), grpc_port=0
    ) as started:
        init_sdk(started, bucket)
        yield started


def pipeline_client(emulator: RunningEmulator) -> Any:
    from google.cloud.aiplatform_v1 import PipelineServiceClient  # noqa: TID251 - Google's client

    return PipelineServiceClient(
        transport="rest", credentials=anonymous_credentials(), client_options={"api_endpoint": emulator.url}
    )


def pipeline(actor: str, bucket: str, do: str, name: str = "by client", **more: Any) -> dict[str, Any]:
    inputs = package_job(actor, bucket, do)["job_spec"]
    return {
        "display_name": name,
        "training_task_definition": DEFINITION,
        "training_task_inputs": inputs,
        "labels": {"team": "vision"},
        **more,
    }


def job_lines(emulator: RunningEmulator, backing: str) -> list[str]:
    return [entry["jsonPayload"]["message"] for entry in entries(emulator, backing)]


def test_a_script_of_the_sdk_trains_two_versions_of_a_model(
    emulator: RunningEmulator, bucket: str, tmp_path: Path
) -> None:
    """``CustomTrainingJob``: the SDK packages the script."""
    from google.cloud import aiplatform  # noqa: TID251 - Google's client

    (tmp_path / "task.py").write_text(SAVE)
    job: Any = aiplatform.CustomTrainingJob(
        display_name="script",
        script_path=str(tmp_path / "task.py"),
        container_uri=EXECUTOR,
        model_serving_container_image_uri=SERVING,
        labels={"team": "sdk"},
    )
    model = job.run(
        model_display_name="digits", model_id="digits", model_labels={"kind": "m"}, base_output_dir=f"{bucket}/one"
    )
    assert job.state.name == "PIPELINE_STATE_SUCCEEDED"
    assert model.resource_name == f"{NUMBERED_PARENT}/models/digits"
    assert (model.version_id, model.display_name, model.labels) == ("1", "digits", {"kind": "m"})
    assert model.uri == f"{bucket}/one/model"
    backing = job.to_dict()["trainingTaskMetadata"]["backingCustomJob"]
    assert f"saved to {bucket}/one/model/" in job_lines(emulator, backing)

    renamed = model.update(display_name="renamed", labels={"kind": "n"})
    assert (renamed.display_name, renamed.labels) == ("renamed", {"kind": "n"})

    again: Any = aiplatform.CustomContainerTrainingJob(
        display_name="again",
        container_uri="docker.example/any",
        command=["python3", "-c", SAVE],
        model_serving_container_image_uri=SERVING,
    )
    second = again.run(
        parent_model=model.resource_name,
        model_version_aliases=["candidate"],
        base_output_dir=f"{bucket}/two",
        is_default_version=False,
    )
    assert (second.resource_name, second.version_id) == (model.resource_name, "2")
    assert second.version_aliases == ["candidate"]


def test_a_package_job_of_the_sdk_without_a_model_succeeds(emulator: RunningEmulator, actor: str, bucket: str) -> None:
    """``CustomPythonPackageTrainingJob``, with a worker."""
    from google.cloud import aiplatform  # noqa: TID251 - Google's client

    job: Any = aiplatform.CustomPythonPackageTrainingJob(
        display_name="package", python_package_gcs_uri=actor, python_module_name="tiny.task", container_uri=EXECUTOR
    )
    model = job.run(
        args=["--chief", "say('colour', os.environ['COLOUR'], config['task'])", "--worker", "say('I work')"],
        environment_variables={"COLOUR": "blue"},
        base_output_dir=f"{bucket}/out",
        replica_count=2,
    )
    assert model is None
    assert job.state.name == "PIPELINE_STATE_SUCCEEDED"
    assert job.start_time <= job.end_time
    lines = job_lines(emulator, job.to_dict()["trainingTaskMetadata"]["backingCustomJob"])
    assert "colour blue {'type': 'chief', 'index': 0}" in lines
    assert "I work" in lines
    listed = aiplatform.CustomPythonPackageTrainingJob.list(filter='display_name="package"')
    assert [found.resource_name for found in listed] == [job.resource_name]
    job.delete()
    assert aiplatform.CustomPythonPackageTrainingJob.list() == []


def test_a_container_job_of_the_sdk_reports_a_missing_model_and_errors(emulator: RunningEmulator, bucket: str) -> None:
    """``CustomContainerTrainingJob``: the error of the upload, the error of the job, and a model."""
    from google.cloud import aiplatform  # noqa: TID251 - Google's client

    def job(code: str) -> Any:
        return aiplatform.CustomContainerTrainingJob(
            display_name="container",
            container_uri="docker.example/any",
            command=["python3", "-c", code],
            model_serving_container_image_uri=SERVING,
        )

    with pytest.raises(RuntimeError, match=f"Model directory {bucket}/empty/model is empty"):
        job("pass").run(base_output_dir=f"{bucket}/empty")
    with pytest.raises(RuntimeError, match="The replica workerpool0-0 exited with a non-zero status of 3"):
        job("import sys; sys.exit(3)").run(base_output_dir=f"{bucket}/failed")
    endless = job("import time; time.sleep(600)")
    endless.submit(base_output_dir=f"{bucket}/endless")
    endless.cancel()
    until_ended(lambda: endless)
    assert endless.state.name == "PIPELINE_STATE_CANCELLED"
    saved = job(SAVE)
    model = saved.run(base_output_dir=f"{bucket}/saved", model_display_name="m")
    assert saved.get_model().resource_name == model.resource_name


def test_the_generated_client_runs_a_pipeline(emulator: RunningEmulator, actor: str, bucket: str) -> None:
    from google.api_core import exceptions

    client = pipeline_client(emulator)
    endless = client.create_training_pipeline(
        parent=PARENT, training_pipeline=pipeline(actor, bucket, "until('/nowhere')", "endless")
    )
    assert endless.name.startswith(f"{NUMBERED_PARENT}/trainingPipelines/")
    failing = client.create_training_pipeline(
        parent=PARENT, training_pipeline=pipeline(actor, bucket, "sys.exit(7)", "failing")
    )
    ended = until_ended(lambda: client.get_training_pipeline(name=failing.name))
    assert ended.state.name == "PIPELINE_STATE_FAILED"
    assert "non-zero status of 7" in ended.error.message
    job = job_client(emulator).get_custom_job(name=ended.training_task_metadata["backingCustomJob"])
    assert (job.display_name, job.state.name) == ("failing-custom-job", "JOB_STATE_FAILED")

    listed = client.list_training_pipelines(request={"parent": PARENT, "page_size": 1})
    assert [found.name for found in listed] == [failing.name, endless.name]
    query = 'state="PIPELINE_STATE_FAILED" AND labels.team=vision AND training_task_definition:*custom_task*'
    found = client.list_training_pipelines(request={"parent": PARENT, "filter": query, "read_mask": "name,state"})
    assert [(each.name, each.display_name) for each in found] == [(failing.name, "")]

    until_running(lambda: client.get_training_pipeline(name=endless.name))
    with pytest.raises(exceptions.BadRequest, match="is in state PIPELINE_STATE_RUNNING and cannot be deleted"):
        client.delete_training_pipeline(name=endless.name)
    # Requests with the project's id and with its number are the same.
    client.cancel_training_pipeline(name=endless.name.replace(NUMBERED_PARENT, PARENT))
    ended = until_ended(lambda: client.get_training_pipeline(name=endless.name))
    assert (ended.state.name, ended.error.code) == ("PIPELINE_STATE_CANCELLED", 1)
    with pytest.raises(exceptions.BadRequest, match="is in state PIPELINE_STATE_CANCELLED and cannot be canceled"):
        client.cancel_training_pipeline(name=endless.name)
    client.delete_training_pipeline(name=endless.name).result(timeout=60)
    with pytest.raises(exceptions.NotFound):
        client.get_training_pipeline(name=endless.name)

    wrong = pipeline(actor, bucket, "pass", model_to_upload={"display_name": "m"})
    with pytest.raises(exceptions.BadRequest) as refused:
        client.create_training_pipeline(parent=PARENT, training_pipeline=wrong)
    field, text = "training_pipeline.model_to_upload.container_spec.image_uri", "Required field is not set."
    assert f"List of found errors:\t1.Field: {field}; Message: {text}" in refused.value.message
    assert refused.value.details[0]["fieldViolations"] == [{"field": field, "description": text}]


def until_running(get: Callable[[], Any]) -> None:
    until_ended(lambda: SimpleNamespace(end_time=get().state.name == "PIPELINE_STATE_RUNNING"))


def test_a_lost_response_to_a_create_request_leaves_one_pipeline(
    emulator: RunningEmulator, actor: str, bucket: str
) -> None:
    client = pipeline_client(emulator)
    emulator.script("CreateTrainingPipeline", "lose")
    with pytest.raises(Exception, match=r"[Cc]onnection"):
        client.create_training_pipeline(parent=PARENT, training_pipeline=pipeline(actor, bucket, "say('hello')"))
    (only,) = client.list_training_pipelines(request={"parent": PARENT})
    ended = until_ended(lambda: client.get_training_pipeline(name=only.name))
    assert ended.state.name == "PIPELINE_STATE_SUCCEEDED"


def test_scripted_faults_apply_to_the_job_of_a_pipeline(emulator: RunningEmulator, actor: str, bucket: str) -> None:
    client = pipeline_client(emulator)
    emulator.script("CreateTrainingPipeline", "out-of-memory")
    made = client.create_training_pipeline(
        parent=PARENT, training_pipeline=pipeline(actor, bucket, "until('/nowhere')")
    )
    ended = until_ended(lambda: client.get_training_pipeline(name=made.name))
    assert ended.state.name == "PIPELINE_STATE_FAILED"
    assert "memory" in ended.error.message


@pytest.fixture
def context() -> dict[str, Any]:
    """The parts of a task's context that an operator needs; ``pushed`` has its XComs."""
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
    return {"ti": ti, "task_instance": ti, "pushed": pushed, "task": SimpleNamespace(extra_links_params={})}


def connect(emulator: RunningEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect the provider's hook to the emulator; it has no setting for an endpoint."""
    from airflow.providers.google.cloud.hooks.vertex_ai.custom_job import CustomJobHook

    monkeypatch.setattr(CustomJobHook, "get_pipeline_service_client", lambda *_, **__: pipeline_client(emulator))
    monkeypatch.setattr(CustomJobHook, "get_job_service_client", lambda *_, **__: job_client(emulator))
    monkeypatch.setattr(CustomJobHook, "get_credentials", lambda _: anonymous_credentials())
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", emulator.connection)


def test_the_google_providers_operators_run_pipelines(
    emulator: RunningEmulator,
    actor: str,
    bucket: str,
    tmp_path: Path,
    context: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.providers.google.cloud.operators.vertex_ai import custom_job as operators  # noqa: TID251

    connect(emulator, monkeypatch)
    (tmp_path / "task.py").write_text(SAVE)
    common: dict[str, Any] = {"task_id": "t", "project_id": PROJECT, "region": REGION, "staging_bucket": bucket}
    training = [
        operators.CreateCustomTrainingJobOperator(
            **common,
            display_name="script",
            script_path=str(tmp_path / "task.py"),
            container_uri=EXECUTOR,
            model_serving_container_image_uri=SERVING,
            model_display_name="script",
        ),
        operators.CreateCustomPythonPackageTrainingJobOperator(
            **common,
            display_name="package",
            python_package_gcs_uri=actor,
            python_module_name="tiny.task",
            container_uri=EXECUTOR,
            args=["--chief", "say('by the provider')"],
        ),
        operators.CreateCustomContainerTrainingJobOperator(
            **common,
            display_name="container",
            container_uri="docker.example/any",
            command=["python3", "-c", SAVE],
            model_serving_container_image_uri=SERVING,
            model_display_name="container",
        ),
    ]
    results, pushed = [], []
    for operator in training:
        context["task"] = operator
        results.append(operator.execute(context))
        pushed.append(dict(context["pushed"]))
    assert [result and result["displayName"] for result in results] == ["script", None, "container"]
    assert "by the provider" in job_lines(emulator, pushed[1]["custom_job_id"])

    listing = operators.ListCustomTrainingJobOperator(
        task_id="l", project_id=PROJECT, region=REGION, page_size=2, filter='state="PIPELINE_STATE_SUCCEEDED"'
    )
    context["task"] = listing
    found = listing.execute(context)
    assert [each["display_name"] for each in found] == ["container", "package", "script"]
    assert [each["name"].rpartition("/")[2] for each in found] == [each["training_id"] for each in pushed[::-1]]

    operators.DeleteCustomTrainingJobOperator(
        task_id="d",
        project_id=PROJECT,
        region=REGION,
        training_pipeline_id=pushed[0]["training_id"],
        custom_job_id=pushed[0]["custom_job_id"],
    ).execute(context)
    assert [each["display_name"] for each in listing.execute(context)] == ["container", "package"]
    assert len(list(job_client(emulator).list_custom_jobs(parent=PARENT))) == 2


def test_a_deferred_operator_of_the_google_provider_runs_a_pipeline(
    emulator: RunningEmulator, bucket: str, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator waits with a trigger that supports only gRPC."""
    import grpc  # type: ignore[import-untyped,unused-ignore]
    from airflow.providers.google.cloud.hooks.vertex_ai import custom_job as hooks
    from airflow.providers.google.cloud.operators.vertex_ai import custom_job as operators  # noqa: TID251
    from airflow.sdk.exceptions import TaskDeferred
    from google.cloud.aiplatform_v1 import PipelineServiceAsyncClient  # noqa: TID251 - Google's client

    connect(emulator, monkeypatch)
    assert emulator.server.grpc is not None
    target = emulator.server.grpc.target

    async def client_of(*_: Any, **__: Any) -> Any:
        transport = PipelineServiceAsyncClient.get_transport_class("grpc_asyncio")
        return PipelineServiceAsyncClient(transport=transport(channel=grpc.aio.insecure_channel(target)))

    monkeypatch.setattr(hooks.CustomJobAsyncHook, "get_pipeline_service_client", client_of)
    operator = operators.CreateCustomContainerTrainingJobOperator(
        task_id="t",
        project_id=PROJECT,
        region=REGION,
        staging_bucket=bucket,
        display_name="deferred",
        container_uri="docker.example/any",
        command=["python3", "-c", SAVE],
        model_serving_container_image_uri=SERVING,
        model_display_name="deferred",
        deferrable=True,
        poll_interval=1,
    )
    context["task"] = operator
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    trigger: Any = deferred.value.trigger

    async def first_event() -> Any:
        return await anext(trigger.run())

    event = asyncio.run(first_event())
    assert event.payload["status"] == "success", event.payload
    model = operator.execute_complete(context, event.payload)
    assert model is not None
    assert model["display_name"] == "deferred"
    assert context["pushed"]["model_id"] == model["name"].rpartition("/")[2]


def test_the_pipeline_methods_work_over_grpc(emulator: RunningEmulator, actor: str, bucket: str) -> None:
    import grpc  # type: ignore[import-untyped,unused-ignore]
    from google.api_core import exceptions
    from google.cloud.aiplatform_v1 import PipelineServiceClient  # noqa: TID251 - Google's client

    assert emulator.server.grpc is not None
    channel = grpc.insecure_channel(emulator.server.grpc.target)
    client: Any = PipelineServiceClient(transport=PipelineServiceClient.get_transport_class("grpc")(channel=channel))
    made = client.create_training_pipeline(
        parent=PARENT, training_pipeline=pipeline(actor, bucket, "until('/nowhere')")
    )
    listed = client.list_training_pipelines(
        request={"parent": PARENT, "page_size": 1, "filter": "labels.team=vision", "read_mask": "name"}
    )
    assert [(found.name, found.display_name) for found in listed] == [(made.name, "")]
    client.cancel_training_pipeline(name=made.name)
    until_ended(lambda: client.get_training_pipeline(name=made.name))
    client.delete_training_pipeline(name=made.name).result(timeout=60)
    with pytest.raises(exceptions.InvalidArgument) as refused:
        client.create_training_pipeline(parent=PARENT, training_pipeline={"display_name": "p"})
    (violation,) = refused.value.details[0].field_violations
    assert violation.field == "training_pipeline.training_task_definition"
