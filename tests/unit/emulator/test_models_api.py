"""Vertex AI's models: uploads, updates with a mask, the order of versions, and rejected requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlengine.core.errors import EmulatorApiError, EmulatorError
from mlengine.emulator.http import Request
from mlengine.emulator.models import ModelStore
from mlengine.emulator.models_api import ModelsApi
from mlengine.emulator.projects import location_name

NAME = f"{location_name('p', 'r')}/models/digits"
MODEL = {"displayName": "m", "artifactUri": "gs://bkt/m", "containerSpec": {"imageUri": "i"}, "labels": {"a": "1"}}


def request(body: Any = None, model: str = "digits", **query: str) -> Request:
    return Request({"project": "p", "location": "r", "model": model}, query, json.dumps(body or {}).encode())


@pytest.fixture
def api(tmp_path: Path) -> ModelsApi:
    api = ModelsApi(ModelStore(tmp_path))
    api.upload(request({"modelId": "digits", "model": MODEL}))
    # The parent with the project's id instead of its number.
    api.upload(request({"parentModel": "projects/p/locations/r/models/digits", "model": MODEL}))
    return api


def test_the_fields_of_the_mask_are_updated(api: ModelsApi) -> None:
    sent = {"name": NAME, "displayName": "other", "description": "d", "labels": {"b": "2"}}
    updated = api.update(request(sent, "digits@2", updateMask="displayName,version_description,labels"))
    assert (updated["name"], updated["versionId"], updated["displayName"]) == (NAME, "2", "other")
    assert updated["labels"] == {"b": "2"}
    assert "description" not in updated
    assert api.get(request(model="digits@2")) == updated
    assert api.get(request(model="digits@1"))["displayName"] == "m"
    cleared = api.update(request({}, updateMask="labels"))
    assert "labels" not in cleared


@pytest.mark.parametrize(
    ("body", "mask", "field"),
    [
        ({}, "", "update_mask"),
        ({}, "artifactUri", "update_mask"),
        ({}, "labels,name", "update_mask"),
        ({"displayName": ""}, "displayName", "model.display_name"),
        ({"labels": {"A": "b"}}, "labels", "model.labels"),
        ({"colour": "blue"}, "labels", "model"),
    ],
)
def test_other_updates_are_refused(api: ModelsApi, body: dict[str, Any], mask: str, field: str) -> None:
    with pytest.raises(EmulatorApiError) as caught:
        api.update(request(body, updateMask=mask))
    assert caught.value.status == "INVALID_ARGUMENT"
    assert caught.value.violation is not None
    assert caught.value.violation[0] == field


@pytest.mark.parametrize("missing", ["displayName", "artifactUri"])
def test_uploads_without_a_required_field_are_refused(api: ModelsApi, missing: str) -> None:
    model = {name: value for name, value in MODEL.items() if name != missing}
    with pytest.raises(EmulatorApiError) as caught:
        api.upload(request({"model": model}))
    assert caught.value.violation is not None
    assert caught.value.violation[0] in {"model.display_name", "model.artifact_uri"}


def test_versions_are_listed_in_order(api: ModelsApi) -> None:
    def numbers(order: str) -> list[str]:
        return [model["versionId"] for model in api.list_versions(request(orderBy=order))["models"]]

    api.update(request({"labels": {}}, "digits@1", updateMask="labels"))
    assert numbers("create_time desc") == ["2", "1"]
    assert numbers("update_time asc") == ["2", "1"]
    assert numbers("create_time") == ["1", "2"]
    for wrong in ("display_name", "create_time up", "create_time,"):
        with pytest.raises(EmulatorApiError, match="Invalid order_by"):
            numbers(wrong)


def test_models_survive_a_restart(api: ModelsApi) -> None:
    api.merge_aliases(request({"versionAliases": ["champion"]}, "digits@2"))
    api.update(request({"description": "d"}, "digits@1", updateMask="description"))
    again = ModelsApi(ModelStore(api.store.folder))
    assert again.get(request(model="digits@champion"))["versionId"] == "2"
    assert again.list_versions(request()) == api.list_versions(request())
    operation = Request({"project": "p", "location": "r", "model": "digits", "operation": "2"}, {}, b"")
    assert again.operation(operation)["response"]["modelVersionId"] == "2"


def test_a_damaged_record_is_named(api: ModelsApi) -> None:
    (path,) = api.store.folder.glob("*.json")
    path.write_text("{")
    with pytest.raises(EmulatorError, match=r"digits\.json"):
        ModelStore(api.store.folder)
