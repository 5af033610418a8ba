"""Discovery documents, from which Google's API client builds its methods.

They contain only the methods that the emulator implements.
"""

from __future__ import annotations

from typing import Any

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator.http import Request

_PAGING = ("filter", "pageToken")
_STRING: dict[str, Any] = {"type": "string"}
_STRINGS: dict[str, Any] = {"type": "array", "items": _STRING}
_LABELS: dict[str, Any] = {"type": "object", "additionalProperties": _STRING}
_VALUE: dict[str, Any] = {"type": "any"}
_ANY: dict[str, Any] = {"type": "object", "additionalProperties": _VALUE}


def answer(request: Request) -> dict[str, Any]:
    """The discovery document of an API.

    :raises EmulatorApiError: NOT_FOUND if the emulator does not have the API.
    """
    version = request.path.get("version") or request.query.get("version", "v1")
    api = request.path.get("api", "")
    documents = {("ml", "v1"): _ml, ("aiplatform", "v1"): _aiplatform}
    if not api:
        api = "aiplatform" if "aiplatform" in request.query.get("labels", "") else "ml"
    if (api, version) not in documents:
        raise EmulatorApiError(f"Requested API {api} {version} is not available on the emulator.", status="NOT_FOUND")
    return documents[api, version]()


def _ml() -> dict[str, Any]:
    parent, name = "v1/{+parent}/jobs", "v1/{+name}"
    job, empty, listing = "Job", "Empty", "ListJobsResponse"
    methods = {
        "create": _method("ml.projects.jobs.create", "POST", parent, request=job, response=job),
        "list": _method("ml.projects.jobs.list", "GET", parent, response=listing, query=_PAGING),
        "get": _method("ml.projects.jobs.get", "GET", name, response=job),
        "patch": _method("ml.projects.jobs.patch", "PATCH", name, request=job, response=job, query=("updateMask",)),
        "cancel": _method("ml.projects.jobs.cancel", "POST", f"{name}:cancel", request=empty, response=empty),
    }
    schemas = {
        "Job": _schema(
            "Job", _strings("jobId", "createTime", "startTime", "endTime", "state", "errorMessage", "etag"),
            labels=_LABELS, trainingInput={"$ref": "TrainingInput"}, trainingOutput=_ANY,
        ),
        "TrainingInput": _schema(
            "TrainingInput",
            _strings("scaleTier", "masterType", "workerType", "parameterServerType", "evaluatorType", "workerCount")
            | _strings("parameterServerCount", "evaluatorCount", "pythonModule", "region", "jobDir", "runtimeVersion")
            | _strings("pythonVersion", "network", "serviceAccount"),
            packageUris=_STRINGS, args=_STRINGS, scheduling=_ANY, masterConfig=_ANY, workerConfig=_ANY,
            parameterServerConfig=_ANY, evaluatorConfig=_ANY, encryptionConfig=_ANY,
            useChiefInTfConfig={"type": "boolean"}, enableWebAccess={"type": "boolean"},
        ),
        "ListJobsResponse": _schema(
            "ListJobsResponse", _strings("nextPageToken"), jobs={"type": "array", "items": {"$ref": "Job"}}
        ),
        "Empty": _schema("Empty", {}),
    }  # fmt: skip
    return _document("ml", {"projects": {"resources": {"jobs": {"methods": methods}}}}, schemas)


def _aiplatform() -> dict[str, Any]:
    empty, operation = "GoogleProtobufEmpty", "GoogleLongrunningOperation"
    jobs, job_schemas = _collection("CustomJob", jobSpec=_ANY, webAccessUris=_LABELS)
    pipelines, pipeline_schemas = _collection(
        "TrainingPipeline", trainingTaskDefinition=_STRING, trainingTaskInputs=_VALUE, trainingTaskMetadata=_VALUE,
        inputDataConfig=_ANY, modelToUpload=_ANY, modelId=_STRING, parentModel=_STRING,
    )  # fmt: skip
    schemas = {
        **job_schemas,
        **pipeline_schemas,
        operation: _schema(
            operation, _strings("name"), done={"type": "boolean"}, metadata=_ANY, response=_ANY, error=_ANY
        ),
        empty: _schema(empty, {}),
    }
    collections = {"customJobs": {"methods": jobs}, "trainingPipelines": {"methods": pipelines}}
    resources = {"projects": {"resources": {"locations": {"resources": collections}}}}
    return _document("aiplatform", resources, schemas)


def _collection(kind: str, **fields: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The methods and the schemas of a type of resource."""
    collection = f"{kind[0].lower()}{kind[1:]}s"
    parent, name, prefix = f"v1/{{+parent}}/{collection}", "v1/{+name}", f"aiplatform.projects.locations.{collection}"
    resource, listing = f"GoogleCloudAiplatformV1{kind}", f"GoogleCloudAiplatformV1List{kind}sResponse"
    empty, operation = "GoogleProtobufEmpty", "GoogleLongrunningOperation"
    methods = {
        "create": _method(f"{prefix}.create", "POST", parent, request=resource, response=resource),
        "list": _method(f"{prefix}.list", "GET", parent, response=listing, query=(*_PAGING, "readMask")),
        "get": _method(f"{prefix}.get", "GET", name, response=resource),
        "delete": _method(f"{prefix}.delete", "DELETE", name, response=operation),
        "cancel": _method(f"{prefix}.cancel", "POST", f"{name}:cancel", request=empty, response=empty),
    }
    schemas = {
        resource: _schema(
            resource, _strings("name", "displayName", "state", "createTime", "startTime", "endTime", "updateTime"),
            labels=_LABELS, error=_ANY, encryptionSpec=_ANY, **fields,
        ),
        listing: _schema(
            listing, _strings("nextPageToken"), **{collection: {"type": "array", "items": {"$ref": resource}}}
        ),
    }  # fmt: skip
    return methods, schemas


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
    method: str, verb: str, path: str, *, response: str, request: str | None = None, query: tuple[str, ...] = ()
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
        "response": {"$ref": response},
        "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
    }
    return {**description, "request": {"$ref": request}} if request else description


def _schema(name: str, properties: dict[str, Any], **more: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "type": "object", "properties": {**properties, **more}}


def _strings(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, _STRING)
