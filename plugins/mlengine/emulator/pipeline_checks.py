"""Checks a ``TrainingPipeline`` as the service does at its creation, and builds its custom job."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from mlengine.core.errors import EmulatorApiError
from mlengine.core.layout import join
from mlengine.emulator import field_errors, messages, vertex_checks
from mlengine.emulator.models_api import MODEL_ID

_CUSTOM = "custom_task_1.0.0.yaml"
_DEFINITION = f"gs://google-cloud-aiplatform/schema/trainingjob/definition/{_CUSTOM}"
_MODEL = "training_pipeline.model_to_upload"
# The images and file names are from the page "Export model artifacts for inference and explanation".
_PREBUILT = re.compile(r"^[a-z]+-docker\.pkg\.dev/vertex-ai/prediction/(?P<framework>tf2?|sklearn|xgboost|pytorch)-")
_TENSORFLOW = ("saved_model.pb", "saved_model.pbtxt")
_ARTIFACTS = {
    "tf": _TENSORFLOW,
    "tf2": _TENSORFLOW,
    "sklearn": ("model.pkl", "model.joblib"),
    "xgboost": ("model.bst", "model.pkl", "model.joblib"),
    "pytorch": ("model.mar",),
}
Body = Mapping[str, Any]


def backing_job(pipeline: Body) -> dict[str, Any]:
    """The custom job of a pipeline.

    The service names the job after the pipeline. Whether it has the pipeline's labels is not documented. Here it has
    none, so that clients do not rely on them.

    :param pipeline: the pipeline as returned by :func:`~mlengine.emulator.messages.read_training_pipeline`.
    :raises EmulatorApiError: a field of the pipeline is missing or invalid, or the emulator does not have the task.
    """
    vertex_checks.check_display_name(pipeline.get("displayName"), "training_pipeline")
    vertex_checks.check_labels(pipeline.get("labels", {}), "training_pipeline")
    _check_task(pipeline)
    spec = _read_inputs(pipeline.get("trainingTaskInputs"))
    vertex_checks.check_spec(spec)
    if pipeline.get("modelToUpload") is not None:
        _check_model(pipeline, spec)
    job = {"displayName": f"{pipeline['displayName']}-custom-job", "jobSpec": spec}
    encryption = pipeline.get("encryptionSpec")
    return {**job, "encryptionSpec": encryption} if encryption else job


def artifact_uri(pipeline: Body) -> str:
    """The location of the model's files: the client's value, or the value of ``AIP_MODEL_DIR`` in the job."""
    uri = pipeline.get("modelToUpload", {}).get("artifactUri")
    if uri:
        return str(uri)
    output = _output(_read_inputs(pipeline.get("trainingTaskInputs")))
    return join(output.rstrip("/"), "model")


def check_artifacts(image: str, uri: str, names: Collection[str]) -> None:
    """Check the files of a model that is uploaded.

    :param image: the image of the model's container. Google's own images need a file with a certain name.
    :param uri: the URI of the model's directory.
    :param names: the names of the files in it.
    :raises EmulatorApiError: FAILED_PRECONDITION: a file is missing.
    """
    match = _PREBUILT.search(image)
    expected = _ARTIFACTS[match["framework"]] if match else ()
    if expected and len(set(expected) & set(names)) != 1:
        listed = ", ".join(expected)
        raise EmulatorApiError(
            f"Model directory {uri} is expected to contain exactly one of: [{listed}].", status="FAILED_PRECONDITION"
        )
    if not names:
        # The service's checks for other images are not documented. A model without files is useless.
        raise EmulatorApiError(f"Model directory {uri} is empty.", status="FAILED_PRECONDITION")


def _check_task(pipeline: Body) -> None:
    definition = pipeline.get("trainingTaskDefinition")
    if not definition:
        raise field_errors.vertex("training_pipeline.training_task_definition", field_errors.REQUIRED)
    if definition.rpartition("/")[2] != _CUSTOM:
        raise EmulatorApiError(
            f"The emulator does not have the training task {definition}.",
            status="UNIMPLEMENTED",
            hint=f"use {_DEFINITION}",
        )
    if pipeline.get("inputDataConfig") is not None:
        raise EmulatorApiError(
            "The emulator has no datasets: training_pipeline.input_data_config.",
            status="UNIMPLEMENTED",
            hint="pass the location of the data in the arguments",
        )


def _read_inputs(inputs: Any) -> dict[str, Any]:
    if not isinstance(inputs, Mapping) or not inputs:
        raise field_errors.vertex("training_pipeline.training_task_inputs", field_errors.REQUIRED)
    try:
        return messages.to_dict(messages.parse(inputs, messages.custom_job_spec_type()))
    except EmulatorApiError as error:
        # Unlike the service, the emulator names the field.
        raise EmulatorApiError(
            "Unable to parse `training_pipeline.training_task_inputs` into custom task `inputs` defined in the file:"
            f" {_DEFINITION}",
            hint=error.message,
        ) from error


def _check_model(pipeline: Body, spec: Body) -> None:
    model = pipeline["modelToUpload"]
    vertex_checks.check_display_name(model.get("displayName"), _MODEL)
    vertex_checks.check_labels(model.get("labels", {}), _MODEL)
    model_id = pipeline.get("modelId")
    if model_id is not None and not MODEL_ID.fullmatch(model_id):
        raise field_errors.vertex("training_pipeline.model_id", f"Model ID '{model_id}' is invalid.")
    if not model.get("containerSpec", {}).get("imageUri"):
        raise field_errors.vertex(f"{_MODEL}.container_spec.image_uri", field_errors.REQUIRED)
    if not model.get("artifactUri") and not _output(spec):
        raise field_errors.vertex(
            "training_pipeline.training_task_inputs.base_output_directory",
            field_errors.REQUIRED,
            "the model is uploaded from there",
        )


def _output(spec: Body) -> str:
    output: str = spec.get("baseOutputDirectory", {}).get("outputUriPrefix", "")
    return output
