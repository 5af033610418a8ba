"""Quotas of calls per minute, and searches that take several calls."""

from __future__ import annotations

import json

from mlengine.emulator.http import Request
from mlengine.emulator.log_limits import Quotas, project_of, resumed_search, unfinished_search


def test_the_quota_applies_to_any_sixty_seconds() -> None:
    now = [0.0]
    quotas = Quotas(lambda: now[0])
    taken = []
    for second in range(0, 180, 10):
        now[0] = float(second)
        taken.append(quotas.take("ListLogEntries", "p", 3))
    assert taken == ([True] * 3 + [False] * 3) * 3


def test_the_project_is_in_the_path_or_among_the_resource_names() -> None:
    body = json.dumps({"resourceNames": ["projects/p", "projects/q"]}).encode()
    assert project_of({"project": "x"}, body) == "x"
    assert project_of({}, body) == "p"
    assert project_of({}, b"no JSON") == project_of({}, b"[]") == project_of({}, b"") == ""


def test_the_token_of_an_unfinished_search_continues_it() -> None:
    for token in ("", "NTA="):
        body = {"filter": "x", **({"pageToken": token} if token else {})}
        found = unfinished_search(Request({}, {}, json.dumps(body).encode()))
        assert "entries" not in found
        again = unfinished_search(Request({}, {}, json.dumps({**body, "pageToken": found["nextPageToken"]}).encode()))
        resumed = resumed_search({**body, "pageToken": again["nextPageToken"]})
        assert resumed == {"filter": "x", "pageToken": token}
    assert resumed_search({"filter": "x"}) == {"filter": "x"}
