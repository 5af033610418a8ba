"""Google's conventions over HTTP: pages, errors, query parameters and bodies."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from mlengine.core.errors import BackendUnavailableError, EmulatorApiError, JobFileError, StorageForbiddenError
from mlengine.emulator.http import Request, error_body, page


def test_pages_contain_every_item_once() -> None:
    items = list(range(7))
    seen: list[int] = []
    token = ""
    for _ in range(3):
        found, token = page(items, "3", token, 100)
        seen += found
    assert seen == items
    assert token == ""
    assert page(items, "1000", "", 5)[0] == items[:5]
    assert page(items, 2, None, 5)[0] == items[:2]
    assert page(items, "", "", 5, default=3)[0] == items[:3]
    assert page(items, "4", "", 5, default=3)[0] == items[:4]


@pytest.mark.parametrize("size", ["x", "-1", "1e3", "99999999999", "²", True, 1.5, [], {}])
def test_an_invalid_page_size_is_rejected(size: Any) -> None:
    with pytest.raises(EmulatorApiError) as caught:
        page([], size, "", 5)
    assert caught.value.status == "INVALID_ARGUMENT"


@pytest.mark.parametrize("token", ["abc", "?", "MQ", "LTE=", 5, base64.urlsafe_b64encode(b"9" * 5000).decode(), "é"])
def test_an_invalid_page_token_is_rejected(token: Any) -> None:
    with pytest.raises(EmulatorApiError, match="page token"):
        page([], "", token, 5)


def test_errors_have_google_s_format() -> None:
    assert error_body(EmulatorApiError("no", status="NOT_FOUND")) == (
        404,
        {"error": {"code": 404, "message": "no", "status": "NOT_FOUND"}},
    )
    violation = ("custom_job.labels", "why")
    details = error_body(EmulatorApiError("no", hint="do", violation=violation))[1]["error"]["details"]
    fields = [{"field": "custom_job.labels", "description": "why"}]
    assert details == [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": fields}]
    assert error_body(BackendUnavailableError("later"))[0] == 503
    assert error_body(JobFileError("too many"))[0] == 400
    assert error_body(StorageForbiddenError("no"))[0] == 500


def test_unknown_query_parameters_are_rejected() -> None:
    Request({}, {"alt": "json", "pageSize": "1"}).only("pageSize")
    with pytest.raises(EmulatorApiError, match='Unknown name "pagesize"'):
        Request({}, {"pagesize": "1"}).only("pageSize")


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff", b'{"a": NaN}', b"[" * 100_000, b'{"a": "\\ud800"}'])
def test_a_body_that_is_not_a_json_object_is_rejected(body: bytes) -> None:
    with pytest.raises(EmulatorApiError, match="Invalid JSON"):
        Request({}, {}, body).json()
