"""Discovery documents: what a client that builds itself from the API's description reads.

As much of each API as is served, no more: a client built from these has no method that would not answer.
"""

from __future__ import annotations

from typing import Any

from mlengine.core.errors import ServiceRefusalError
from mlengine.emulator.http import Request

_PAGING = ("filter", "pageToken")
_STRING: dict[str, Any] = {"type": "string"}
_STRINGS: dict[str, Any] = {"type": "array", "items": _STRING}
_LABELS: dict[str, Any] = {"type": "object", "additionalProperties": _STRING}
_ANY: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "any"}}


def answer(request: Request) -> dict[str, Any]:
    """:raises ServiceRefusalError: NOT_FOUND for an API that is not served."""
    version = request.path.get("version") or request.query.get("version", "v1")
    api = request.path.get("api", "")
    documents = {("ml", "v1"): _ml, ("aiplatform", "v1"): _aiplatform}
    if not api:
        api = "aiplatform" if "aiplatform" in request.query.get("labels", "") else "ml"
    if (api, version) not in documents:
        raise ServiceRefusalError(f"Requested API {api} {version} is not served here.", status="NOT_FOUND")
    return documents[api, version]()


def _ml() -> dict[str, Any]:
    parent, name = "v1/{+parent}/jobs", "v1/{+name}"
    job, empty, listing = "Job", "Empty", "ListJobsResponse"
    methods = {
        "create": _method("ml.projects.jobs.create", "POST", parent, takes=job, gives=job),
        "list": _method("ml.projects.jobs.list", "GET", parent, gives=listing, query=_PAGING),
        "get": _method("ml.projects.jobs.get", "GET", name, gives=job),
        "patch": _method("ml.projects.jobs.patch", "PATCH", name, takes=job, gives=job, query=("updateMask",)),
        "cancel": _method("ml.projects.jobs.cancel", "POST", f"{name}:cancel", takes=empty, gives=empty),
    }
    schemas = {
        "Job": _schema(
            "Job", _texts("jobId", "createTime", "startTime", "endTime", "state", "errorMessage", "etag"),
            labels=_LABELS, trainingInput={"$ref": "TrainingInput"}, trainingOutput=_ANY,
        ),
        "TrainingInput": _schema(
            "TrainingInput",
            _texts("scaleTier", "masterType", "workerType", "parameterServerType", "evaluatorType", "workerCount")
            | _texts("parameterServerCount", "evaluatorCount", "pythonModule", "region", "jobDir", "runtimeVersion")
            | _texts("pythonVersion", "network", "serviceAccount"),
            packageUris=_STRINGS, args=_STRINGS, scheduling=_ANY, masterConfig=_ANY, workerConfig=_ANY,
            parameterServerConfig=_ANY, evaluatorConfig=_ANY, encryptionConfig=_ANY,
            useChiefInTfConfig={"type": "boolean"}, enableWebAccess={"type": "boolean"},
        ),
        "ListJobsResponse": _schema(
            "ListJobsResponse", _texts("nextPageToken"), jobs={"type": "array", "items": {"$ref": "Job"}}
        ),
        "Empty": _schema("Empty", {}),
    }  # fmt: skip
    return _document("ml", {"projects": {"resources": {"jobs": {"methods": methods}}}}, schemas)


def _aiplatform() -> dict[str, Any]:
    parent, name = "v1/{+parent}/customJobs", "v1/{+name}"
    prefix = "aiplatform.projects.locations.customJobs"
    job = "GoogleCloudAiplatformV1CustomJob"
    empty = "GoogleProtobufEmpty"
    listing = "GoogleCloudAiplatformV1ListCustomJobsResponse"
    operation = "GoogleLongrunningOperation"
    query = (*_PAGING, "readMask")
    methods = {
        "create": _method(f"{prefix}.create", "POST", parent, takes=job, gives=job),
        "list": _method(f"{prefix}.list", "GET", parent, gives=listing, query=query),
        "get": _method(f"{prefix}.get", "GET", name, gives=job),
        "delete": _method(f"{prefix}.delete", "DELETE", name, gives=operation),
        "cancel": _method(f"{prefix}.cancel", "POST", f"{name}:cancel", takes=empty, gives=empty),
    }
    schemas = {
        job: _schema(
            job, _texts("name", "displayName", "state", "createTime", "startTime", "endTime", "updateTime"),
            labels=_LABELS, jobSpec=_ANY, error=_ANY, encryptionSpec=_ANY, webAccessUris=_LABELS,
        ),
        listing: _schema(listing, _texts("nextPageToken"), customJobs={"type": "array", "items": {"$ref": job}}),
        operation: _schema(
            operation, _texts("name"), done={"type": "boolean"}, metadata=_ANY, response=_ANY, error=_ANY
        ),
        empty: _schema(empty, {}),
    }  # fmt: skip
    resources = {"projects": {"resources": {"locations": {"resources": {"customJobs": {"methods": methods}}}}}}
    return _document("aiplatform", resources, schemas)


def _document(api: str, resources: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    host = f"https://{api}.googleapis.com/"
    return {
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": f"{api}:v1",
        "name": api,
        "version": "v1",
        "revision": "0",
        "protocol": "rest",
        "rootUrl": host,
        "baseUrl": host,
        "servicePath": "",
        "batchPath": "batch",
        "parameters": {name: {"type": "string", "location": "query"} for name in ("alt", "fields", "key", "quotaUser")},
        "auth": {"oauth2": {"scopes": {"https://www.googleapis.com/auth/cloud-platform": {"description": "all"}}}},
        "resources": resources,
        "schemas": schemas,
    }


def _method(
    method: str, verb: str, path: str, *, gives: str, takes: str | None = None, query: tuple[str, ...] = ()
) -> dict[str, Any]:
    name = "parent" if "{+parent}" in path else "name"
    parameters: dict[str, Any] = {name: {"type": "string", "location": "path", "required": True, "pattern": ".+"}}
    parameters |= {item: {"type": "string", "location": "query"} for item in query}
    if "pageToken" in query:
        parameters["pageSize"] = {"type": "integer", "format": "int32", "location": "query"}
    description: dict[str, Any] = {
        "id": method,
        "path": path,
        "flatPath": path,
        "httpMethod": verb,
        "parameters": parameters,
        "parameterOrder": [name],
        "response": {"$ref": gives},
        "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
    }
    return {**description, "request": {"$ref": takes}} if takes else description


def _schema(name: str, properties: dict[str, Any], **more: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "type": "object", "properties": {**properties, **more}}


def _texts(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, _STRING)
