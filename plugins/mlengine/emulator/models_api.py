"""The part of Vertex AI's ModelService that a model registry needs: upload, versions and aliases.

The operation of an upload is done only at the second request, because the real service also takes some time.
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
from mlengine.emulator import field_errors, filters, messages, vertex_checks
from mlengine.emulator.http import Request, list_response, page
from mlengine.emulator.job_api import parent_of
from mlengine.emulator.models import Model, ModelStore, Version
from mlengine.emulator.projects import location_name, project_number

Handler = Callable[[Request], dict[str, Any]]
_PAGE = 1000
_DEFAULT_PAGE = 100  # the documentation does not state a number
_ORDERS = {"create_time": "versionCreateTime", "update_time": "versionUpdateTime"}
MODEL_ID = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_UPDATABLE = {
    "display_name": "displayName",
    "description": "description",
    "version_description": "versionDescription",
    "labels": "labels",
}
_UPLOADED = "type.googleapis.com/google.cloud.aiplatform.v1.UploadModelResponse"


@dataclass
class ModelsApi:
    """The methods of the API. Each raises :class:`EmulatorApiError` where the service responds with an error."""

    store: ModelStore
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def methods(self) -> list[tuple[str, str, str, Handler]]:
        """The HTTP method, path below a location, name and handler of each API method."""
        return [
            ("POST", "/models:upload", "UploadModel", self.upload),
            ("GET", "/models/{model}", "GetModel", self.get),
            ("PATCH", "/models/{model}", "UpdateModel", self.update),
            ("GET", "/models/{model}:listVersions", "ListModelVersions", self.list_versions),
            ("POST", "/models/{model}:mergeVersionAliases", "MergeVersionAliases", self.merge_aliases),
            ("GET", "/models/{model}/operations", "ListOperations", self.operations),
            ("GET", "/models/{model}/operations/{operation}", "GetOperation", self.operation),
        ]

    def upload(self, request: Request) -> dict[str, Any]:
        """Handle UploadModel, which creates a model, or a new version of ``parentModel``."""
        request.only()
        parent = _parent(request)
        message = messages.parse({**request.json(), "parent": parent}, messages.upload_model_request_type())
        with self._lock:
            version = self.register(parent, messages.to_dict(message))
            name = version["name"]
            response = {"@type": _UPLOADED, "model": name, "modelVersionId": version["versionId"]}
            model = self._model(name)
            operation = f"{name}/operations/{len(model.operations) + 1}"
            model.operations[operation] = {
                "name": operation, "metadata": _metadata(), "done": True, "response": response,
            }  # fmt: skip
            self.store.put(model)
            return {"name": operation, "metadata": _metadata()}

    def register(self, parent: str, upload: Mapping[str, Any]) -> dict[str, Any]:
        """Create a model or a version.

        :param parent: the resource name of the location.
        :param upload: an ``UploadModelRequest`` in canonical form.
        :returns: the version.
        """
        fields = upload.get("model", {})
        for field_name in ("displayName", "artifactUri"):
            if not fields.get(field_name):
                raise field_errors.vertex(f"model.{field_name}", field_errors.REQUIRED)
        if not fields.get("containerSpec", {}).get("imageUri"):
            # Documented as "not required for AutoML Models". Google's SDK rejects artifacts without a container.
            raise field_errors.vertex("model.container_spec.image_uri", field_errors.REQUIRED)
        aliases = fields.get("versionAliases", [])
        _check_aliases(aliases)
        with self._lock:
            name = self._name(parent, upload)
            model = self.store.get(name) or Model(name)
            version = _version(name, fields, len(model.versions) + 1)
            model.versions.append(version)
            for alias in aliases:
                model.set_alias(version, alias)
            self.store.put(model)
            return version

    def get(self, request: Request) -> dict[str, Any]:
        """Handle GetModel, which returns one version."""
        request.only()
        with self._lock:
            return self._find(request)[1]

    def update(self, request: Request) -> dict[str, Any]:
        """Handle UpdateModel, which changes the fields of one version that the update mask names."""
        request.only("updateMask")
        names = _update_mask(request.query.get("updateMask", ""))
        sent = messages.to_dict(messages.parse(request.json(), messages.model_type(), "model"))
        vertex_checks.check_labels(sent.get("labels", {}), "model")
        if "displayName" in names:
            vertex_checks.check_display_name(sent.get("displayName"), "model")
        with self._lock:
            model, version = self._find(request)
            for name in names:
                version.pop(name, None)
            version.update({name: sent[name] for name in names if name in sent})
            version["updateTime"] = version["versionUpdateTime"] = rfc3339(time.time())
            self.store.put(model)
            return version

    def list_versions(self, request: Request) -> dict[str, Any]:
        """Handle ListModelVersions."""
        request.only("filter", "pageSize", "pageToken", "readMask", "orderBy")
        query = request.query
        condition = filters.parse(query.get("filter", ""), frozenset(), filters.VERTEX_OPERATORS)
        mask = messages.FieldMask(query.get("readMask", ""), messages.model_type())
        with self._lock:
            model, _ = self._find(request)
            matching = [version for version in model.versions if condition.matches(_labels_of(version))]
            matching = _ordered(matching, query.get("orderBy", ""))
            found, token = page(matching, query.get("pageSize"), query.get("pageToken"), _PAGE, default=_DEFAULT_PAGE)
            return list_response("models", [mask.apply(version) for version in found], token)

    def merge_aliases(self, request: Request) -> dict[str, Any]:
        """Handle MergeVersionAliases, which moves aliases to this version; ``-ALIAS`` removes one."""
        request.only()
        aliases = request.json().get("versionAliases", [])
        _check_aliases(aliases)
        with self._lock:
            model, version = self._find(request)
            for alias in aliases:
                model.set_alias(version, alias)
            self.store.put(model)
            return version

    def operation(self, request: Request) -> dict[str, Any]:
        """Handle GetOperation."""
        name = f"{_parent(request)}/models/{request.path['model']}"
        model = self.store.get(name)
        found = model.operations.get(f"{name}/operations/{request.path['operation']}") if model else None
        if found is None:
            raise EmulatorApiError("The operation is not found.", status="NOT_FOUND")
        return found

    def operations(self, request: Request) -> dict[str, Any]:
        """Handle ListOperations, which lists the uploads to a model. They are done at the second request."""
        request.only("pageSize", "pageToken")
        model = self._model(f"{_parent(request)}/models/{request.path['model']}")
        every = list(model.operations.values())
        found, token = page(
            every, request.query.get("pageSize"), request.query.get("pageToken"), _PAGE, default=_DEFAULT_PAGE
        )
        return list_response("operations", found, token)

    def _name(self, parent: str, upload: Mapping[str, Any]) -> str:
        """The resource name of the model for which an upload creates a version."""
        if upload.get("parentModel"):
            name = _with_number(str(upload["parentModel"]))
            return self._model(name).name
        model_id = str(upload.get("modelId") or f"m{len(self.store.names()) + 1}")
        if not MODEL_ID.fullmatch(model_id):
            raise EmulatorApiError(f"Model ID '{model_id}' is invalid.")
        name = f"{parent}/models/{model_id}"
        if name in self.store.names():
            raise EmulatorApiError(f"The Model {name} already exists.", status="ALREADY_EXISTS")
        return name

    def _model(self, name: str) -> Model:
        model = self.store.get(name)
        if model is None:
            raise EmulatorApiError(f"The Model {name} does not exist.", status="NOT_FOUND")
        return model

    def _find(self, request: Request) -> tuple[Model, Version]:
        """The version ``ID@2`` or ``ID@champion`` that a request names; the default version if it names none."""
        model_id, _, wanted = request.path["model"].partition("@")
        name = f"{_parent(request)}/models/{model_id}"
        model = self._model(name)
        version = model.version(wanted or "default")
        if version is None:
            raise EmulatorApiError(f"The Model {name}@{wanted} does not exist.", status="NOT_FOUND")
        return model, version


def _check_aliases(aliases: Any) -> None:
    if not isinstance(aliases, list):
        raise EmulatorApiError("Invalid value at 'version_aliases': it must be a list of strings.")
    for alias in aliases:
        if not isinstance(alias, str) or not _ALIAS.fullmatch(alias.removeprefix("-")):
            raise EmulatorApiError(f"Version alias '{alias}' is invalid.")


def _version(name: str, model: Mapping[str, Any], number: int) -> dict[str, Any]:
    now = rfc3339(time.time())
    times = {"versionCreateTime": now, "versionUpdateTime": now, "createTime": now, "updateTime": now}
    aliases = ["default"] if number == 1 else []
    return {**model, "name": name, "versionId": str(number), "versionAliases": aliases, **times}


def _update_mask(text: str) -> list[str]:
    """The fields of an update by their names in JSON.

    :raises EmulatorApiError: the mask has no fields, or other fields than those that Google's SDK changes. The
        documentation does not list the supported fields.
    """
    paths = [field_errors.snake(path.strip()) for path in text.split(",") if path.strip()]
    if not paths:
        raise field_errors.vertex("update_mask", field_errors.REQUIRED)
    for path in paths:
        if path not in _UPDATABLE:
            raise field_errors.vertex("update_mask", f"The field `{path}` cannot be updated.")
    return [_UPDATABLE[path] for path in paths]


def _parent(request: Request) -> str:
    return location_name(*parent_of(request))


def _with_number(name: str) -> str:
    """A resource name with the number of its project instead of its id."""
    match = re.fullmatch(r"projects/([^/]+)/(.+)", name)
    return f"projects/{project_number(match[1])}/{match[2]}" if match else name


def _ordered(versions: list[dict[str, Any]], order: str) -> list[dict[str, Any]]:
    """The versions, sorted as the request asks, by create_time or update_time."""
    for part in reversed([part.split() for part in order.split(",")] if order.strip() else []):
        if not part or part[0] not in _ORDERS or part[1:] not in ([], ["asc"], ["desc"]):
            raise EmulatorApiError(f"Invalid order_by: {order}")
        versions = sorted(versions, key=lambda version: str(version[_ORDERS[part[0]]]), reverse=part[1:] == ["desc"])
    return versions


def _labels_of(version: Mapping[str, Any]) -> filters.Lookup:
    labels = {f"labels.{name}": str(value) for name, value in version.get("labels", {}).items()}
    return labels.get


def _metadata() -> dict[str, Any]:
    now = rfc3339(time.time())
    kind = "type.googleapis.com/google.cloud.aiplatform.v1.UploadModelOperationMetadata"
    return {"@type": kind, "genericMetadata": {"createTime": now, "updateTime": now}}
