"""Google's API client builds the methods from the emulator's discovery documents."""

from __future__ import annotations

import pytest

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator import discovery
from mlengine.emulator.http import Request

METHODS = ("create", "list", "get", "delete", "cancel")


def test_the_document_has_the_methods_of_vertex_ai() -> None:
    from googleapiclient.discovery import build_from_document  # type: ignore[import-untyped,unused-ignore]

    document = discovery.answer(Request({"api": "aiplatform", "version": "v1"}, {}))
    client = build_from_document(document, developerKey="none")
    locations = client.projects().locations()
    for collection in ("customJobs", "trainingPipelines"):
        methods = getattr(locations, collection)()
        for name in METHODS:
            assert callable(getattr(methods, name))
        request = methods.list(parent="projects/p/locations/r", filter="x", pageSize=5, pageToken="t", readMask="name")
        assert request.uri.startswith(f"https://aiplatform.googleapis.com/v1/projects/p/locations/r/{collection}?")
        with pytest.raises(TypeError, match="orderBy"):
            methods.list(parent="projects/p/locations/r", orderBy="create_time")


def test_other_apis_are_not_found() -> None:
    with pytest.raises(EmulatorApiError) as caught:
        discovery.answer(Request({"api": "storage", "version": "v1"}, {}))
    assert caught.value.status == "NOT_FOUND"
