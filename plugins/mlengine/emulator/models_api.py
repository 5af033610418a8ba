"""Vertex AI's ModelService, as far as a registry that follows champions needs it: upload, versions, aliases.

In memory only. An upload is an operation that is over at the second look, as the real one takes its time; what a
request may contain is judged by Google's own messages.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from mlengine.core.errors import ServiceRefusalError
from mlengine.core.times import rfc3339
from mlengine.emulator import filters
from mlengine.emulator.http import Request

Handler = Callable[[Request], dict[str, Any]]
_ID = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_UPLOADED = "type.googleapis.com/google.cloud.aiplatform.v1.UploadModelResponse"


@dataclass
class ModelsFace:
    """The methods. A model is its versions, by resource name, in order."""

    _models: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    _operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def methods(self) -> list[tuple[str, str, str, Handler]]:
        """Verb, path below a location, name and handler."""
        return [
            ("POST", "/models:upload", "UploadModel", self.upload),
            ("GET", "/models/{model}", "GetModel", self.get),
            ("GET", "/models/{model}:listVersions", "ListModelVersions", self.list_versions),
            ("POST", "/models/{model}:mergeVersionAliases", "MergeVersionAliases", self.merge_aliases),
            ("GET", "/models/{model}/operations/{operation}", "GetOperation", self.operation),
        ]

    def upload(self, request: Request) -> dict[str, Any]:
        request.only()
        parent = f"projects/{request.path['project']}/locations/{request.path['location']}"
        asked = _read({**request.json(), "parent": parent})
        model = asked.get("model", {})
        for needed in ("displayName", "artifactUri"):
            if not model.get(needed):
                raise ServiceRefusalError(f"The field model.{needed} is required.")
        with self._lock:
            name = self._name(parent, asked)
            versions = self._models.setdefault(name, [])
            version = self._version(name, model, len(versions) + 1)
            for alias in model.get("versionAliases", []):
                self._alias(versions, version, alias)
            versions.append(version)
            number = f"{len(self._operations) + 1}"
            made = {"@type": _UPLOADED, "model": name, "modelVersionId": version["versionId"]}
            operation = f"{name}/operations/{number}"
            self._operations[operation] = {"name": operation, "metadata": _metadata(), "done": True, "response": made}
            return {"name": operation, "metadata": _metadata()}

    def get(self, request: Request) -> dict[str, Any]:
        request.only()
        with self._lock:
            return dict(self._find(_parent(request), request.path["model"]))

    def list_versions(self, request: Request) -> dict[str, Any]:
        request.only("filter", "pageSize", "pageToken", "readMask", "orderBy")
        wanted = filters.parse(request.query.get("filter", ""), frozenset())
        with self._lock:
            self._find(_parent(request), request.path["model"])
            name = f"{_parent(request)}/models/{request.path['model'].partition('@')[0]}"
            return {"models": [dict(one) for one in self._models[name] if wanted.matches(_labels_of(one))]}

    def merge_aliases(self, request: Request) -> dict[str, Any]:
        """An alias is taken from the version that has it; one with a minus before it is taken away."""
        request.only()
        with self._lock:
            version = self._find(_parent(request), request.path["model"])
            for alias in request.json().get("versionAliases", []):
                self._alias(self._models[version["name"]], version, alias)
            return dict(version)

    def operation(self, request: Request) -> dict[str, Any]:
        name = f"{_parent(request)}/models/{request.path['model']}/operations/{request.path['operation']}"
        with self._lock:
            if name not in self._operations:
                raise ServiceRefusalError("The operation is not found.", status="NOT_FOUND")
            return self._operations[name]

    def _name(self, parent: str, asked: Mapping[str, Any]) -> str:
        """The resource that an upload makes a version of."""
        if asked.get("parentModel"):
            name = str(asked["parentModel"])
            if name not in self._models:
                raise ServiceRefusalError(f"The Model {name} does not exist.", status="NOT_FOUND")
            return name
        model_id = str(asked.get("modelId") or f"m{len(self._models) + 1}")
        if not _ID.fullmatch(model_id):
            raise ServiceRefusalError(f"Model ID '{model_id}' is invalid.")
        name = f"{parent}/models/{model_id}"
        if name in self._models:
            raise ServiceRefusalError(f"The Model {name} already exists.", status="ALREADY_EXISTS")
        return name

    def _version(self, name: str, model: Mapping[str, Any], number: int) -> dict[str, Any]:
        now = rfc3339(time.time())
        times = {"versionCreateTime": now, "versionUpdateTime": now, "createTime": now, "updateTime": now}
        first = ["default"] if number == 1 else []
        return {**model, "name": name, "versionId": str(number), "versionAliases": first, **times}

    def _alias(self, versions: list[dict[str, Any]], version: dict[str, Any], alias: str) -> None:
        if not _ALIAS.fullmatch(alias.removeprefix("-")):
            raise ServiceRefusalError(f"Version alias '{alias}' is invalid.")
        for one in versions:
            one["versionAliases"] = [old for old in one["versionAliases"] if old != alias.removeprefix("-")]
        if not alias.startswith("-"):
            version["versionAliases"] = sorted({*version["versionAliases"], alias})

    def _find(self, parent: str, which: str) -> dict[str, Any]:
        """``ID``, ``ID@2`` or ``ID@champion``; the default version if none is named."""
        model_id, _, version = which.partition("@")
        versions = self._models.get(f"{parent}/models/{model_id}", [])
        for one in versions:
            if one["versionId"] == version or (version or "default") in one["versionAliases"]:
                return one
        raise ServiceRefusalError(f"The Model {parent}/models/{which} does not exist.", status="NOT_FOUND")


def _parent(request: Request) -> str:
    return f"projects/{request.path['project']}/locations/{request.path['location']}"


def _labels_of(version: Mapping[str, Any]) -> filters.Lookup:
    labels = {f"labels.{name}": str(value) for name, value in version.get("labels", {}).items()}
    return labels.get


def _metadata() -> dict[str, Any]:
    now = rfc3339(time.time())
    kind = "type.googleapis.com/google.cloud.aiplatform.v1.UploadModelOperationMetadata"
    return {"@type": kind, "genericMetadata": {"createTime": now, "updateTime": now}}


@cache
def _message() -> Any:
    from google.cloud.aiplatform_v1.types import model_service  # noqa: TID251 - the judge of requests, in the server only

    return type(model_service.UploadModelRequest.pb(model_service.UploadModelRequest()))


def _read(data: Mapping[str, Any]) -> dict[str, Any]:
    """:raises ServiceRefusalError: a field that the message has not, or a value of the wrong type."""
    from google.protobuf import json_format

    try:
        plain: dict[str, Any] = json_format.MessageToDict(json_format.ParseDict(dict(data), _message()()))
    except json_format.ParseError as error:
        raise ServiceRefusalError(f"Invalid JSON payload received. {error}") from error
    return plain
