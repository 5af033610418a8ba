"""Which method answers which request, under the names that faults and the log use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlengine.core.errors import ServiceRefusalError
from mlengine.emulator import discovery
from mlengine.emulator.engine import Engine
from mlengine.emulator.faults import Fault, Script
from mlengine.emulator.http import Request
from mlengine.emulator.log_entries import list_entries
from mlengine.emulator.mlengine_api import MlengineFace
from mlengine.emulator.models_api import ModelsFace
from mlengine.emulator.vertex_api import VertexFace
from mlengine.storage.client import Storage

Handler = Callable[[Request], dict[str, Any]]
_VERTEX = "/v1(?:beta1)?/projects/{project}/locations/{location}"


@dataclass(frozen=True)
class Route:
    """``name`` is empty for what is no method of a service, and meets no faults."""

    verb: str
    pattern: re.Pattern[str]
    name: str
    handler: Handler


class Routes:
    """Finds a request's route."""

    def __init__(self, engine: Engine, storage: Storage, bucket: str | None, script: Script) -> None:
        vertex, mlengine = VertexFace(engine, storage, bucket), MlengineFace(engine, storage, bucket)

        def entries(request: Request) -> dict[str, Any]:
            return list_entries(engine.journal, engine.refresh(engine.store.all()), request.json())

        self._routes = [
            _route("POST", f"{_VERTEX}/customJobs", "CreateCustomJob", vertex.create),
            _route("GET", f"{_VERTEX}/customJobs", "ListCustomJobs", vertex.list),
            _route("GET", f"{_VERTEX}/customJobs/{{job}}", "GetCustomJob", vertex.get),
            _route("DELETE", f"{_VERTEX}/customJobs/{{job}}", "DeleteCustomJob", vertex.delete),
            _route("POST", f"{_VERTEX}/customJobs/{{job}}:cancel", "CancelCustomJob", vertex.cancel),
            _route("GET", f"{_VERTEX}/operations/{{operation}}", "GetOperation", vertex.operation),
            *(_route(verb, _VERTEX + path, name, done) for verb, path, name, done in ModelsFace().methods()),
            _route("POST", "/v2/entries:list", "ListLogEntries", entries),
            _route("POST", "/v1/projects/{project}/jobs", "projects.jobs.create", mlengine.create),
            _route("GET", "/v1/projects/{project}/jobs", "projects.jobs.list", mlengine.list),
            _route("GET", "/v1/projects/{project}/jobs/{job}", "projects.jobs.get", mlengine.get),
            _route("PATCH", "/v1/projects/{project}/jobs/{job}", "projects.jobs.patch", mlengine.patch),
            _route("POST", "/v1/projects/{project}/jobs/{job}:cancel", "projects.jobs.cancel", mlengine.cancel),
            _route("GET", "/discovery/v1/apis/{api}/{version}/rest", "", discovery.answer),
            _route("GET", "/[$]discovery/rest", "", discovery.answer),
            _route("GET", "/healthz", "", lambda _: {"status": "ok"}),
            _route("GET", "/faults", "", lambda _: {"unused": [vars(fault) for fault in script.unused()]}),
            _route("POST", "/faults", "", lambda request: _add(script, request)),
            _route("DELETE", "/faults", "", lambda _: _clear(script)),
        ]

    def find(self, verb: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """:raises ServiceRefusalError: NOT_FOUND, as for a method that Google's server has not."""
        for route in self._routes:
            match = route.pattern.fullmatch(path)
            if match is not None and route.verb == verb:
                return route, match.groupdict()
        raise ServiceRefusalError(
            f"Method not found: {verb} {path}", status="NOT_FOUND", remedy="docs/service.md lists what is served"
        )


def _route(verb: str, template: str, name: str, handler: Handler) -> Route:
    return Route(verb, re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/:]+)", template)), name, handler)


def _add(script: Script, request: Request) -> dict[str, Any]:
    faults = [Fault.from_json(data) for data in request.json().get("faults", ())]
    script.add(*faults)
    return {"added": len(faults)}


def _clear(script: Script) -> dict[str, Any]:
    script.clear()
    return {}
