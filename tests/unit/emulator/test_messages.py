"""Requests as Google's messages: unknown fields, output-only fields and field masks."""

from __future__ import annotations

import pytest

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator import messages

JOB = {
    "name": "projects/p/locations/r/customJobs/1",
    "displayName": "j",
    "createTime": "2026-11-23T14:00:00Z",
    "jobSpec": {"scheduling": {"timeout": "60s", "strategy": "SPOT"}, "enableWebAccess": True},
    "labels": {"team": "vision"},
}


def mask(text: str) -> messages.Mask:
    return messages.Mask(text, messages.custom_job_type())


def test_unknown_fields_are_rejected_with_their_path() -> None:
    with pytest.raises(EmulatorApiError, match=r"Unknown name \"colour\" at 'custom_job\.jobSpec"):
        messages.read_custom_job({"displayName": "j", "jobSpec": {"colour": "blue"}})


def test_values_of_the_wrong_type_are_rejected() -> None:
    with pytest.raises(EmulatorApiError, match="Invalid JSON"):
        messages.read_custom_job({"displayName": 5})


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
