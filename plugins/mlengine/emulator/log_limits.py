"""Limits of Cloud Logging as scripted faults: quotas, and searches that take several calls."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from mlengine.emulator.http import Request

_WINDOW_SECONDS = 60.0
_SEARCHING = "searching."


class Quotas:
    """The calls during the last minute, by method and project. Not thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: dict[tuple[str, str], deque[float]] = {}

    def take(self, method: str, project: str, per_minute: int) -> bool:
        """Count a call. Returns ``False`` if it exceeds the quota; such a call does not count."""
        now = self._clock()
        calls = self._calls.setdefault((method, project), deque())
        while calls and calls[0] <= now - _WINDOW_SECONDS:
            calls.popleft()
        if len(calls) >= per_minute:
            return False
        calls.append(now)
        return True


def project_of(path: Mapping[str, str], body: bytes) -> str:
    """The project of a request, from its path, or else the first project whose logs it reads."""
    if "project" in path:
        return path["project"]
    try:
        names = json.loads(body or b"{}")["resourceNames"]
        return str(names[0]).split("/")[1]
    except (ValueError, TypeError, LookupError, RecursionError):
        return ""


def unfinished_search(request: Request) -> dict[str, Any]:
    """The response of an ``entries:list`` call that "did not have time to search all": no entries, and a page token."""
    return {"nextPageToken": _SEARCHING + str(resumed_search(request.json()).get("pageToken", ""))}


def resumed_search(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request with the original page token, without the prefix from :func:`unfinished_search`."""
    token = body.get("pageToken")
    if not isinstance(token, str) or not token.startswith(_SEARCHING):
        return dict(body)
    return {**body, "pageToken": token.removeprefix(_SEARCHING)}
