"""Requests as Google's messages: unknown fields, output-only fields and field masks."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator import messages

SCHEDULING = "custom_job.job_spec.scheduling"
API = "type.googleapis.com/google.cloud.aiplatform.v1"
JOB = {
    "name": "projects/p/locations/r/customJobs/1",
    "displayName": "j",
    "createTime": "2026-11-23T14:00:00Z",
    "jobSpec": {"scheduling": {"timeout": "60s", "strategy": "SPOT"}, "enableWebAccess": True},
    "labels": {"team": "vision"},
}


def mask(text: str) -> messages.FieldMask:
    return messages.FieldMask(text, messages.custom_job_type())


def test_unknown_fields_are_rejected_with_their_path() -> None:
    with pytest.raises(EmulatorApiError) as caught:
        messages.read_custom_job({"displayName": "j", "jobSpec": {"colour": "blue"}})
    text = "Invalid JSON payload received. Unknown name \"colour\" at 'custom_job.job_spec': Cannot find field."
    assert caught.value.message == text
    assert caught.value.violation == ("custom_job.job_spec", text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"displayName": 5}, "Invalid value at 'custom_job.display_name' (TYPE_STRING), 5"),
        ({"labels": {"a": 5}}, "Invalid value at 'custom_job.labels' ("),
        (
            {"jobSpec": {"workerPoolSpecs": [{}, {"replicaCount": "x"}]}},
            "Invalid value at 'custom_job.job_spec.worker_pool_specs[1].replica_count' (TYPE_INT64), \"x\"",
        ),
        (
            {"jobSpec": {"scheduling": {"timeout": 5}}},
            f"Invalid value at '{SCHEDULING}.timeout' (type.googleapis.com/google.protobuf.Duration), 5",
        ),
        (
            {"jobSpec": {"scheduling": {"strategy": "CHEAP"}}},
            f"Invalid value at '{SCHEDULING}.strategy' ({API}.Scheduling.Strategy), \"CHEAP\"",
        ),
    ],
)
def test_values_of_the_wrong_type_are_rejected_with_their_path(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(EmulatorApiError) as caught:
        messages.read_custom_job(wrong)
    assert caught.value.message.startswith(message)
    assert caught.value.violation == (message.split("'")[1], caught.value.message)


def test_output_only_fields_of_a_training_pipeline_are_dropped() -> None:
    inputs = {"workerPoolSpecs": [{"replicaCount": "1"}]}
    sent = {
        "display_name": "p",
        "state": "PIPELINE_STATE_FAILED",
        "trainingTaskMetadata": {},
        "trainingTaskInputs": inputs,
    }
    assert messages.read_training_pipeline(sent) == {"displayName": "p", "trainingTaskInputs": inputs}


def test_output_only_fields_are_dropped() -> None:
    job = messages.read_custom_job({"displayName": "j", "state": "JOB_STATE_SUCCEEDED", "name": "mine"})
    assert job == {"displayName": "j"}


def test_a_mask_selects_fields() -> None:
    assert mask("name,create_time").apply(JOB) == {"name": JOB["name"], "createTime": JOB["createTime"]}
    assert mask("jobSpec.scheduling.timeout").apply(JOB) == {"jobSpec": {"scheduling": {"timeout": "60s"}}}
    assert mask("").apply(JOB) == mask("*").apply(JOB) == JOB


@pytest.mark.parametrize("text", ["nope", "name,nope", "jobSpec.nope", ",", "name,", "labels.team", "name.x"])
def test_a_mask_of_an_unknown_field_is_rejected(text: str) -> None:
    with pytest.raises(EmulatorApiError, match="read_mask") as caught:
        mask(text)
    assert caught.value.status == "INVALID_ARGUMENT"
