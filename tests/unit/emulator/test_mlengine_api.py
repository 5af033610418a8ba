"""ML Engine's methods: pages, and updates of labels with a mask and an etag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator.engine import Engine
from mlengine.emulator.http import Request
from mlengine.emulator.mlengine_api import MlengineApi
from mlengine.testing.backend import MemoryBackend
from tests.support.memory_storage import MemoryStorage
from tests.unit.emulator.test_mlengine_jobs import job


@pytest.fixture
def api(tmp_path: Path) -> MlengineApi:
    storage: Any = MemoryStorage()
    return MlengineApi(Engine(MemoryBackend(), tmp_path), storage, "gs://bkt")


def request(body: Any = None, name: str = "census_1", **query: str) -> Request:
    return Request({"project": "p", "job": name}, query, json.dumps(body or {}).encode())


def create(api: MlengineApi, name: str = "census_1") -> dict[str, Any]:
    return api.create(request({**job(), "jobId": name, "labels": {"team": "a", "n": "1"}}))


@pytest.mark.parametrize("mask", ["labels", "labels,etag", "etag,labels"])
def test_labels_are_replaced(api: MlengineApi, mask: str) -> None:
    etag = create(api)["etag"]
    patched = api.patch(request({"labels": {"team": "b"}, "etag": etag}, updateMask=mask))
    assert patched["labels"] == {"team": "b"}
    assert patched["etag"] != etag
    assert api.get(request())["labels"] == {"team": "b"}


@pytest.mark.parametrize("mask", ["labels", "labels,etag"])
def test_an_update_of_an_old_version_is_refused(api: MlengineApi, mask: str) -> None:
    etag = create(api)["etag"]
    api.patch(request({"labels": {"team": "b"}}, updateMask="labels"))
    with pytest.raises(EmulatorApiError) as caught:
        api.patch(request({"labels": {"team": "c"}, "etag": etag}, updateMask=mask))
    assert caught.value.status == "ABORTED"
    assert api.get(request())["labels"] == {"team": "b"}


@pytest.mark.parametrize("mask", ["", "labels.team", "state", "labels,trainingInput", "labels,etag,jobId"])
def test_other_masks_are_refused(api: MlengineApi, mask: str) -> None:
    create(api)
    with pytest.raises(EmulatorApiError, match="Field: update_mask Error: ") as caught:
        api.patch(request({"labels": {}}, updateMask=mask))
    assert caught.value.status == "INVALID_ARGUMENT"
    assert caught.value.violation is not None
    assert caught.value.violation[0] == "update_mask"


@pytest.mark.parametrize("body", [{"labels": ["a"]}, {"labels": {"A": "b"}}])
def test_invalid_labels_are_refused(api: MlengineApi, body: dict[str, Any]) -> None:
    create(api)
    with pytest.raises(EmulatorApiError, match=r"Field: job\.labels") as caught:
        api.patch(request(body, updateMask="labels"))
    assert caught.value.status == "INVALID_ARGUMENT"


def test_a_page_has_20_jobs_by_default_and_100_at_most(api: MlengineApi) -> None:
    for number in range(101):
        create(api, f"job_{number}")
    sizes = {size: len(api.list(request(pageSize=size) if size else request())["jobs"]) for size in ("", "7", "1000")}
    assert sizes == {"": 20, "7": 7, "1000": 100}
