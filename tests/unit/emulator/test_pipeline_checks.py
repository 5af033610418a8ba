"""Training pipelines that are rejected when they are created, and the job of those that are accepted."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator import messages, pipeline_checks
from tests.unit.emulator.test_vertex_jobs import container, pool

DEFINITION = "gs://google-cloud-aiplatform/schema/trainingjob/definition/custom_task_1.0.0.yaml"
OUTPUT = {"outputUriPrefix": "gs://bkt/out"}
MODEL = {"displayName": "m", "containerSpec": {"imageUri": "eu.gcr.io/own/server:1"}}
REQUIRED = "Required field is not set."


def inputs(*pools: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"workerPoolSpecs": list(pools or (pool(),)), "baseOutputDirectory": OUTPUT, **more}


def pipeline(**more: Any) -> dict[str, Any]:
    """A training pipeline; ``None`` removes a field."""
    made = {"displayName": "p", "trainingTaskDefinition": DEFINITION, "trainingTaskInputs": inputs(), **more}
    return {name: value for name, value in made.items() if value is not None}


def job_of(body: dict[str, Any]) -> dict[str, Any]:
    return pipeline_checks.backing_job(messages.read_training_pipeline(body))


def test_the_job_has_the_inputs_and_the_encryption_key_of_the_pipeline() -> None:
    key = {"kmsKeyName": "projects/p/locations/r/keyRings/k/cryptoKeys/c"}
    job = job_of(pipeline(encryptionSpec=key, labels={"a": "b"}))
    assert job == {"displayName": "p-custom-job", "jobSpec": inputs(), "encryptionSpec": key}


def test_inputs_can_be_in_snake_case() -> None:
    snake = {
        "worker_pool_specs": [
            {
                "machine_spec": {"machine_type": "n1-standard-4"},
                "replica_count": 1,
                "container_spec": {"image_uri": "i", "command": ["true"]},
            }
        ],
        "base_output_directory": {"output_uri_prefix": "gs://bkt/out"},
    }
    (only,) = job_of(pipeline(trainingTaskInputs=snake))["jobSpec"]["workerPoolSpecs"]
    assert only["containerSpec"] == {"imageUri": "i", "command": ["true"]}


def test_the_model_directory_is_the_one_that_the_job_gets() -> None:
    assert pipeline_checks.artifact_uri(pipeline()) == "gs://bkt/out/model"
    given = pipeline(modelToUpload={**MODEL, "artifactUri": "gs://bkt/there"})
    assert pipeline_checks.artifact_uri(given) == "gs://bkt/there"


@pytest.mark.parametrize(
    ("wrong", "field", "message"),
    [
        (pipeline(displayName=None), "training_pipeline.display_name", REQUIRED),
        (pipeline(labels={"A": "b"}), "training_pipeline.labels", "no more than 64 labels"),
        (pipeline(trainingTaskDefinition=None), "training_pipeline.training_task_definition", REQUIRED),
        (pipeline(trainingTaskInputs=None), "training_pipeline.training_task_inputs", REQUIRED),
        (
            pipeline(trainingTaskInputs={"baseOutputDirectory": OUTPUT}),
            "job_spec.worker_pool_specs",
            REQUIRED,
        ),
        (
            pipeline(trainingTaskInputs=inputs(container(imageUri=""))),
            "job_spec.worker_pool_specs[0].container_spec.image_uri",
            REQUIRED,
        ),
        (
            pipeline(modelToUpload={**MODEL, "displayName": ""}),
            "training_pipeline.model_to_upload.display_name",
            REQUIRED,
        ),
        (
            pipeline(modelToUpload={**MODEL, "labels": {"A": "b"}}),
            "training_pipeline.model_to_upload.labels",
            "no more than 64 labels",
        ),
        (pipeline(modelToUpload=MODEL, modelId="1a"), "training_pipeline.model_id", "Model ID '1a' is invalid."),
        (
            pipeline(modelToUpload={"displayName": "m"}),
            "training_pipeline.model_to_upload.container_spec.image_uri",
            REQUIRED,
        ),
        (
            pipeline(modelToUpload=MODEL, trainingTaskInputs=inputs(baseOutputDirectory={})),
            "training_pipeline.training_task_inputs.base_output_directory",
            REQUIRED,
        ),
    ],
)
def test_invalid_pipelines_are_rejected_with_the_field(wrong: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(EmulatorApiError) as caught:
        job_of(wrong)
    assert caught.value.status == "INVALID_ARGUMENT"
    assert caught.value.violation is not None
    assert caught.value.violation[0] == field
    assert message in caught.value.violation[1]


@pytest.mark.parametrize(
    "inputs_", [{"workerPoolSpec": []}, {"workerPoolSpecs": 5}, {"baseOutputDirectory": "gs://b/o"}]
)
def test_inputs_other_than_a_job_spec_are_rejected_with_the_services_message(inputs_: dict[str, Any]) -> None:
    with pytest.raises(EmulatorApiError) as caught:
        job_of(pipeline(trainingTaskInputs=inputs_))
    words = "Unable to parse `training_pipeline.training_task_inputs` into custom task `inputs` defined in the file: "
    assert caught.value.message == words + DEFINITION
    assert caught.value.status == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "more",
    [
        {"trainingTaskDefinition": DEFINITION.replace("custom_task", "automl_tables")},
        {"inputDataConfig": {"datasetId": "1"}},
    ],
)
def test_unsupported_pipelines_are_unimplemented(more: dict[str, Any]) -> None:
    with pytest.raises(EmulatorApiError) as caught:
        job_of(pipeline(**more))
    assert caught.value.status == "UNIMPLEMENTED"


@pytest.mark.parametrize(
    ("image", "names", "accepted"),
    [
        ("eu.gcr.io/own/server:1", ["anything"], True),
        ("eu.gcr.io/own/server:1", [], False),
        ("us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest", ["saved_model.pb", "variables/x"], True),
        ("us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest", ["model/saved_model.pb"], False),
        ("us-docker.pkg.dev/vertex-ai/prediction/xgboost-cpu.2-1:latest", ["model.bst"], True),
        ("us-docker.pkg.dev/vertex-ai/prediction/xgboost-cpu.2-1:latest", ["model.bst", "model.pkl"], False),
    ],
)
def test_googles_images_need_their_files(image: str, names: list[str], accepted: bool) -> None:
    if accepted:
        pipeline_checks.check_artifacts(image, "gs://bkt/m", names)
        return
    with pytest.raises(EmulatorApiError) as caught:
        pipeline_checks.check_artifacts(image, "gs://bkt/m", names)
    assert caught.value.status == "FAILED_PRECONDITION"
