"""No request causes an internal error: the response to any request is a result or an error of the API."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlengine.core.errors import MlengineError
from mlengine.emulator.engine import Engine
from mlengine.emulator.faults import FaultScript
from mlengine.emulator.http import Request, as_dict, status_of
from mlengine.emulator.routes import Route, Routes
from mlengine.testing.backend import MemoryBackend
from tests.support.memory_storage import MemoryStorage
from tests.unit.emulator.test_mlengine_jobs import job as mlengine_job
from tests.unit.emulator.test_vertex_jobs import body as vertex_job
from tests.unit.emulator.test_vertex_jobs import container, pool

PATH = {
    "project": "p", "location": "r", "job": "census_1", "operation": "1", "pipeline": "1", "model": "m1", "api": "ml",
    "version": "v1",
}  # fmt: skip
BODIES = {
    "CreateCustomJob": vertex_job(pool(), container(env=[{"name": "A"}]), scheduling={"timeout": "5s"}),
    "CreateTrainingPipeline": {
        "displayName": "p",
        "trainingTaskDefinition": "gs://google-cloud-aiplatform/schema/trainingjob/definition/custom_task_1.0.0.yaml",
        "trainingTaskInputs": {
            **vertex_job(pool())["jobSpec"],
            "baseOutputDirectory": {"outputUriPrefix": "gs://bkt/out"},
        },
        "modelToUpload": {"displayName": "m", "containerSpec": {"imageUri": "i"}, "labels": {"a": "b"}},
    },
    "projects.jobs.create": {**mlengine_job(masterConfig={}, scheduling={}), "labels": {"a": "b"}},
    "projects.jobs.patch": {"labels": {"a": "b"}, "etag": ""},
    "ListLogEntries": {
        "resourceNames": ["projects/p"],
        "filter": "severity>=INFO",
        "pageSize": 5,
        "pageToken": "",
        "orderBy": "",
    },
    "UploadModel": {
        "model": {
            "displayName": "m",
            "artifactUri": "gs://bkt/m",
            "versionAliases": ["a1"],
            "containerSpec": {"imageUri": "i"},
        }
    },
    "UpdateModel": {"displayName": "m", "labels": {"a": "b"}},
    "MergeVersionAliases": {"versionAliases": ["a1"]},
    "": {"faults": [{"method": "GetCustomJob", "action": "reset"}]},
}
QUERIES = ("filter", "pageSize", "pageToken", "readMask", "orderBy", "updateMask", "$alt")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def routes() -> Iterator[list[Route]]:
    with tempfile.TemporaryDirectory() as folder:
        storage: Any = MemoryStorage()
        engine = Engine(MemoryBackend(), Path(folder))
        routes = Routes(engine, storage, "gs://bkt", FaultScript())
        by_name = {route.name: route for route in routes.all}
        send(by_name["projects.jobs.create"], {}, json.dumps(mlengine_job()).encode())
        send(by_name["UploadModel"], {}, json.dumps(BODIES["UploadModel"]).encode())
        yield routes.all


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in JSON data."""
    yield path
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from places(value, (*path, key))


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of JSON data with another value at ``path``."""
    if not path:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[path[0]] = changed(data[path[0]], path[1:], value)
    return copy


def send(route: Route, query: dict[str, str], body: bytes = b"", **path: str) -> dict[str, Any]:
    parts = {name: {**PATH, **path}[name] for name in route.pattern.groupindex}
    return as_dict(route.handler(Request(parts, query, body)))


def call(route: Route, query: dict[str, str], body: bytes = b"", **path: str) -> None:
    try:
        response = send(route, query, body, **path)
    except MlengineError as error:
        if status_of(error) == "INTERNAL":
            raise
        return
    json.dumps(response).encode()


@pytest.mark.parametrize("name", BODIES)
def test_the_base_requests_of_this_module_are_valid(routes: list[Route], name: str) -> None:
    body = {**BODIES[name], "jobId": "census_2"} if name == "projects.jobs.create" else BODIES[name]
    query = {"updateMask": "labels"} if name in {"projects.jobs.patch", "UpdateModel"} else {}
    (route,) = (route for route in routes if route.name == name and route.verb in {"POST", "PATCH"})
    send(route, query, json.dumps(body).encode())


BODY = st.one_of(
    [
        st.tuples(st.just(name), st.sampled_from(list(places(body))), JSON).map(
            lambda case: (case[0], case[1], case[2])
        )
        for name, body in BODIES.items()
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(case=BODY)
@example(case=("ListLogEntries", ("pageToken",), "abc"))
@example(case=("ListLogEntries", ("pageSize",), "abc"))
@example(case=("ListLogEntries", ("resourceNames",), [5]))
@example(case=("CreateCustomJob", ("displayName",), "\ud800"))
@example(case=("projects.jobs.patch", ("labels",), ["a"]))
def test_any_value_in_a_body_is_answered_without_an_internal_error(
    routes: list[Route], case: tuple[str, tuple[Any, ...], Any]
) -> None:
    name, path, value = case
    body = json.dumps(changed(BODIES[name], path, value)).encode()
    query = {"updateMask": "labels"} if name in {"projects.jobs.patch", "UpdateModel"} else {}
    for route in routes:
        if route.name == name and route.verb != "GET":
            call(route, query, body)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(name=st.sampled_from(QUERIES), value=st.text(max_size=30))
@example(name="readMask", value="nope")
@example(name="filter", value="(" * 5000)
@example(name="filter", value="createTime>0001-01-01T00:00:00+14:00")
@example(name="pageToken", value="abc")
def test_any_query_parameter_is_answered_without_an_internal_error(routes: list[Route], name: str, value: str) -> None:
    for route in routes:
        if route.verb == "GET":
            call(route, {name: value})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(name=st.sampled_from(list(PATH)), value=st.text(min_size=1, max_size=400))
@example(name="project", value="\0")
@example(name="project", value="x" * 400)
@example(name="location", value="..")
def test_any_path_is_answered_without_an_internal_error(routes: list[Route], name: str, value: str) -> None:
    for route in routes:
        call(route, {}, json.dumps(BODIES.get(route.name, {})).encode(), **{name: value})


@settings(max_examples=50)
@given(body=st.binary(max_size=50))
def test_any_bytes_as_a_body_are_answered_without_an_internal_error(body: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine, storage = Engine(MemoryBackend(), Path(folder)), MemoryStorage()
        for route in Routes(engine, storage, None, FaultScript()).all:  # type: ignore[arg-type]
            if route.verb == "POST":
                call(route, {}, body)
