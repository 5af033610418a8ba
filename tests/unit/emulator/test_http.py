"""Google's way over HTTP: pages, masks, errors."""

from __future__ import annotations

import pytest

from mlengine.core.errors import BackendUnavailableError, ServiceRefusalError
from mlengine.emulator.http import Request, error_body, mask, page


def test_pages_cover_everything_once() -> None:
    items = list(range(7))
    seen: list[int] = []
    query = {"pageSize": "3"}
    for _ in range(3):
        some, token = page(items, query, 100)
        seen += some
        query = {"pageSize": "3", "pageToken": token}
    assert seen == items
    assert token == ""
    assert page(items, {"pageSize": "1000"}, 5)[0] == items[:5]
    for wrong in ({"pageSize": "x"}, {"pageSize": "-1"}, {"pageToken": "?"}):
        with pytest.raises(ServiceRefusalError):
            page(items, wrong, 5)


def test_a_mask_leaves_what_it_names() -> None:
    job = {"name": "n", "createTime": "t", "jobSpec": {"a": 1}, "labels": {}}
    assert mask(job, "name,create_time") == {"name": "n", "createTime": "t"}
    assert mask(job, "jobSpec.scheduling") == {"jobSpec": {"a": 1}}
    assert mask(job, "") == mask(job, "*") == job


def test_errors_have_google_s_shape() -> None:
    assert error_body(ServiceRefusalError("no", status="NOT_FOUND")) == (
        404,
        {"error": {"code": 404, "message": "no", "status": "NOT_FOUND"}},
    )
    assert error_body(BackendUnavailableError("later"))[0] == 503


def test_unknown_parameters_and_broken_bodies_are_refused() -> None:
    Request({}, {"alt": "json", "pageSize": "1"}).only("pageSize")
    with pytest.raises(ServiceRefusalError, match='Unknown name "pagesize"'):
        Request({}, {"pagesize": "1"}).only("pageSize")
    for body in (b"{", b"[]", b'"x"', b"\xff"):
        with pytest.raises(ServiceRefusalError, match="Invalid JSON"):
            Request({}, {}, body).json()
