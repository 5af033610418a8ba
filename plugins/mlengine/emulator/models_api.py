"""Vertex AI's ModelService, as far as a model registry needs it: upload, versions and aliases.

Models are kept in memory only. The operation of an upload is done at the second request, because the service takes
some time too.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlengine.core.errors import EmulatorApiError
from mlengine.core.times import rfc3339
from mlengine.emulator import filters, messages
from mlengine.emulator.http import Request, page
from mlengine.emulator.job_api import parent_of

Handler = Callable[[Request], dict[str, Any]]
_PAGE = 1000
_ID = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_UPLOADED = "type.googleapis.com/google.cloud.aiplatform.v1.UploadModelResponse"


@dataclass
class ModelsApi:
    """The methods. A model is the list of its versions, by resource name.

    Each method raises :class:`EmulatorApiError` where the service responds with an error.
    """

    _models: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    _operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def methods(self) -> list[tuple[str, str, str, Handler]]:
        """HTTP method, path below a location, name and handler of each method."""
        return [
            ("POST", "/models:upload", "UploadModel", self.upload),
            ("GET", "/models/{model}", "GetModel", self.get),
            ("GET", "/models/{model}:listVersions", "ListModelVersions", self.list_versions),
            ("POST", "/models/{model}:mergeVersionAliases", "MergeVersionAliases", self.merge_aliases),
            ("GET", "/models/{model}/operations/{operation}", "GetOperation", self.operation),
        ]

    def upload(self, request: Request) -> dict[str, Any]:
        """UploadModel: a new model, or a new version of ``parentModel``."""
        request.only()
        parent = _parent(request)
        message = messages.parse({**request.json(), "parent": parent}, messages.upload_model_request_type())
        upload = messages.to_dict(message)
        model = upload.get("model", {})
        for name in ("displayName", "artifactUri"):
            if not model.get(name):
                raise EmulatorApiError(f"The field model.{name} is required.")
        if not model.get("containerSpec", {}).get("imageUri"):
            # Documented as "not required for AutoML Models"; Google's SDK refuses artifacts without a container.
            raise EmulatorApiError("The field model.container_spec.image_uri is required.")
        aliases = model.get("versionAliases", [])
        _check_aliases(aliases)
        with self._lock:
            name = self._name(parent, upload)
            versions = self._models.setdefault(name, [])
            version = _version(name, model, len(versions) + 1)
            versions.append(version)
            for alias in aliases:
                _set_alias(versions, version, alias)
            response = {"@type": _UPLOADED, "model": name, "modelVersionId": version["versionId"]}
            operation = f"{name}/operations/{len(self._operations) + 1}"
            self._operations[operation] = {
                "name": operation, "metadata": _metadata(), "done": True, "response": response,
            }  # fmt: skip
            return {"name": operation, "metadata": _metadata()}

    def get(self, request: Request) -> dict[str, Any]:
        """GetModel: one version."""
        request.only()
        with self._lock:
            return dict(self._find(_parent(request), request.path["model"]))

    def list_versions(self, request: Request) -> dict[str, Any]:
        """ListModelVersions."""
        request.only("filter", "pageSize", "pageToken", "readMask")
        query = request.query
        condition = filters.parse(query.get("filter", ""), frozenset())
        mask = messages.Mask(query.get("readMask", ""), messages.model_type())
        with self._lock:
            self._find(_parent(request), request.path["model"])
            name = f"{_parent(request)}/models/{request.path['model'].partition('@')[0]}"
            matching = [version for version in self._models[name] if condition.matches(_labels_of(version))]
            found, token = page(matching, query.get("pageSize"), query.get("pageToken"), _PAGE)
            response: dict[str, Any] = {"models": [mask.apply(version) for version in found]}
            return {**response, "nextPageToken": token} if token else response

    def merge_aliases(self, request: Request) -> dict[str, Any]:
        """MergeVersionAliases: an alias moves to this version; ``-ALIAS`` removes it."""
        request.only()
        aliases = request.json().get("versionAliases", [])
        _check_aliases(aliases)
        with self._lock:
            version = self._find(_parent(request), request.path["model"])
            for alias in aliases:
                _set_alias(self._models[version["name"]], version, alias)
            return dict(version)

    def operation(self, request: Request) -> dict[str, Any]:
        """GetOperation."""
        name = f"{_parent(request)}/models/{request.path['model']}/operations/{request.path['operation']}"
        with self._lock:
            if name not in self._operations:
                raise EmulatorApiError("The operation is not found.", status="NOT_FOUND")
            return self._operations[name]

    def _name(self, parent: str, upload: Mapping[str, Any]) -> str:
        """The resource name of the model that an upload creates a version of."""
        if upload.get("parentModel"):
            name = str(upload["parentModel"])
            if name not in self._models:
                raise EmulatorApiError(f"The Model {name} does not exist.", status="NOT_FOUND")
            return name
        model_id = str(upload.get("modelId") or f"m{len(self._models) + 1}")
        if not _ID.fullmatch(model_id):
            raise EmulatorApiError(f"Model ID '{model_id}' is invalid.")
        name = f"{parent}/models/{model_id}"
        if name in self._models:
            raise EmulatorApiError(f"The Model {name} already exists.", status="ALREADY_EXISTS")
        return name

    def _find(self, parent: str, model: str) -> dict[str, Any]:
        """The version ``ID``, ``ID@2`` or ``ID@champion``; the default version if none is named."""
        model_id, _, version = model.partition("@")
        for candidate in self._models.get(f"{parent}/models/{model_id}", []):
            if candidate["versionId"] == version or (version or "default") in candidate["versionAliases"]:
                return candidate
        raise EmulatorApiError(f"The Model {parent}/models/{model} does not exist.", status="NOT_FOUND")


def _check_aliases(aliases: Any) -> None:
    if not isinstance(aliases, list):
        raise EmulatorApiError("Invalid value at 'version_aliases': it must be a list of strings.")
    for alias in aliases:
        if not isinstance(alias, str) or not _ALIAS.fullmatch(alias.removeprefix("-")):
            raise EmulatorApiError(f"Version alias '{alias}' is invalid.")


def _set_alias(versions: list[dict[str, Any]], version: dict[str, Any], alias: str) -> None:
    for other in versions:
        other["versionAliases"] = [old for old in other["versionAliases"] if old != alias.removeprefix("-")]
    if not alias.startswith("-"):
        version["versionAliases"] = sorted({*version["versionAliases"], alias})


def _version(name: str, model: Mapping[str, Any], number: int) -> dict[str, Any]:
    now = rfc3339(time.time())
    times = {"versionCreateTime": now, "versionUpdateTime": now, "createTime": now, "updateTime": now}
    aliases = ["default"] if number == 1 else []
    return {**model, "name": name, "versionId": str(number), "versionAliases": aliases, **times}


def _parent(request: Request) -> str:
    project, location = parent_of(request)
    return f"projects/{project}/locations/{location}"


def _labels_of(version: Mapping[str, Any]) -> filters.Lookup:
    labels = {f"labels.{name}": str(value) for name, value in version.get("labels", {}).items()}
    return labels.get


def _metadata() -> dict[str, Any]:
    now = rfc3339(time.time())
    kind = "type.googleapis.com/google.cloud.aiplatform.v1.UploadModelOperationMetadata"
    return {"@type": kind, "genericMetadata": {"createTime": now, "updateTime": now}}
