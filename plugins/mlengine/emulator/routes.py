"""Finds the method of a request, by the names that faults and the log use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator import discovery
from mlengine.emulator.engine import Engine
from mlengine.emulator.faults import FaultScript, read_faults
from mlengine.emulator.http import Request, Response
from mlengine.emulator.log_entries import list_entries
from mlengine.emulator.log_limits import resumed_search
from mlengine.emulator.mlengine_api import MlengineApi
from mlengine.emulator.models import ModelStore
from mlengine.emulator.models_api import ModelsApi
from mlengine.emulator.pipelines import PipelineStore
from mlengine.emulator.pipelines_api import PipelinesApi
from mlengine.emulator.projects import Projects
from mlengine.emulator.vertex_api import VertexApi
from mlengine.storage.client import Storage

Handler = Callable[[Request], Response]
_VERTEX = "/v1(?:beta1)?/projects/{project}/locations/{location}"


@dataclass(frozen=True)
class Route:
    """The route of one method.

    :param verb: the HTTP method.
    :param pattern: a pattern for the path.
    :param name: the method's name; empty for the emulator's own endpoints, to which no faults apply.
    :param handler: the function that executes the method.
    """

    verb: str
    pattern: re.Pattern[str]
    name: str
    handler: Handler


class Routes:
    """The routes of all methods.

    :param bucket: the bucket for the logs of jobs that name no bucket.
    """

    def __init__(self, engine: Engine, storage: Storage, bucket: str | None, script: FaultScript) -> None:
        vertex, mlengine = VertexApi(engine, storage, bucket), MlengineApi(engine, storage, bucket)
        models = ModelsApi(ModelStore(engine.folder / "models"))
        pipelines = PipelinesApi(
            engine, storage, store=PipelineStore(engine.folder / "pipelines"), jobs=vertex, models=models
        )
        engine.after_poll.append(pipelines.upload_models)
        self._projects = Projects(record.project for record in engine.store.all())

        def entries(request: Request) -> Response:
            body = self._projects.with_ids(resumed_search(request.json()))
            return list_entries(engine.journal, engine.store.all(), body, engine.refresh)

        def operation(request: Request) -> dict[str, Any]:
            return pipelines.operation(request) or vertex.operation(request)

        self.all = [
            _route("POST", f"{_VERTEX}/customJobs", "CreateCustomJob", vertex.create),
            _route("GET", f"{_VERTEX}/customJobs", "ListCustomJobs", vertex.list),
            _route("GET", f"{_VERTEX}/customJobs/{{job}}", "GetCustomJob", vertex.get),
            _route("DELETE", f"{_VERTEX}/customJobs/{{job}}", "DeleteCustomJob", vertex.delete),
            _route("POST", f"{_VERTEX}/customJobs/{{job}}:cancel", "CancelCustomJob", vertex.cancel),
            _route("GET", f"{_VERTEX}/operations/{{operation}}", "GetOperation", operation),
            _route("POST", f"{_VERTEX}/trainingPipelines", "CreateTrainingPipeline", pipelines.create),
            _route("GET", f"{_VERTEX}/trainingPipelines", "ListTrainingPipelines", pipelines.list),
            _route("GET", f"{_VERTEX}/trainingPipelines/{{pipeline}}", "GetTrainingPipeline", pipelines.get),
            _route("DELETE", f"{_VERTEX}/trainingPipelines/{{pipeline}}", "DeleteTrainingPipeline", pipelines.delete),
            _route(
                "POST", f"{_VERTEX}/trainingPipelines/{{pipeline}}:cancel", "CancelTrainingPipeline", pipelines.cancel
            ),
            *(_route(verb, _VERTEX + path, name, handler) for verb, path, name, handler in models.methods()),
            _route("POST", "/v2/entries:list", "ListLogEntries", entries),
            _route("POST", "/v1/projects/{project}/jobs", "projects.jobs.create", mlengine.create),
            _route("GET", "/v1/projects/{project}/jobs", "projects.jobs.list", mlengine.list),
            _route("GET", "/v1/projects/{project}/jobs/{job}", "projects.jobs.get", mlengine.get),
            _route("PATCH", "/v1/projects/{project}/jobs/{job}", "projects.jobs.patch", mlengine.patch),
            _route("POST", "/v1/projects/{project}/jobs/{job}:cancel", "projects.jobs.cancel", mlengine.cancel),
            _route("GET", "/discovery/v1/apis/{api}/{version}/rest", "", discovery.answer),
            _route("GET", "/[$]discovery/rest", "", discovery.answer),
            _route("GET", "/healthz", "", lambda _: {"status": "ok"}),
            _route("GET", "/faults", "", lambda _: {"unused": [asdict(fault) for fault in script.unused()]}),
            _route("POST", "/faults", "", lambda request: _add_faults(script, request)),
            _route("DELETE", "/faults", "", lambda _: _clear_faults(script)),
        ]

    def find(self, verb: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """The route of a request, and the variable parts of its path. A project is given by its id.

        :raises EmulatorApiError: NOT_FOUND if there is no such method.
        """
        for route in self.all:
            match = route.pattern.fullmatch(path)
            if match is not None and route.verb == verb:
                parts = match.groupdict()
                if "project" in parts:
                    parts["project"] = self._projects.id_of(parts["project"])
                return route, parts
        raise EmulatorApiError(
            f"Method not found: {verb} {path}",
            status="NOT_FOUND",
            hint="docs/emulator.md lists the methods of the emulator",
        )


def _route(verb: str, template: str, name: str, handler: Handler) -> Route:
    return Route(verb, re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/:]+)", template)), name, handler)


def _add_faults(script: FaultScript, request: Request) -> dict[str, Any]:
    faults = read_faults(request.json().get("faults", []), "faults")
    script.add(*faults)
    return {"added": len(faults)}


def _clear_faults(script: FaultScript) -> dict[str, Any]:
    script.clear()
    return {}
