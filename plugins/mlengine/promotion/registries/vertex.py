"""Vertex AI's Model Registry: one model there for each model here, one version of it for each champion.

Over REST, as the backend is. An upload has no request id, so each version carries a key as a label: it is looked for
before an upload, and again after one whose answer did not come.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlengine.backends.vertex import location as places
from mlengine.backends.vertex.client import RestClient
from mlengine.champions.history import Champion
from mlengine.core.errors import BackendError, BackendUnavailableError, RegistryError, RegistryUnavailableError
from mlengine.promotion.registries import ALIAS, Registered, described, key_of

log = logging.getLogger(__name__)

KEY_LABEL = "mlengine-key"
# "default" is the version that an endpoint deploys if none is named.
ALIASES = (ALIAS, "default")
UPLOAD_SECONDS = 900.0
_FIRST_LOOK, _LONGEST_PAUSE = 1.0, 15.0
_LABEL_LIMIT = 63


class VertexRegistry:
    """:class:`~mlengine.promotion.registries.Registry` in a project and a region.

    :param image_uri: of the container that serves the model, for endpoints and batch predictions. Without one, the
        version can be kept and compared, but not deployed.
    :param container: the rest of the API's ``containerSpec``: ``{"ports": [{"containerPort": 8501}]}``.
    :param model_id: the model's id there; the model's name here if empty.
    :param labels: for people and for bills.
    :param raw: laid over the API's ``model``, key by key.
    :param project: :param region: :param endpoint: as of the backend ``vertex``.
    :param client: replaces the REST client.
    """

    name = "vertex"

    def __init__(
        self,
        *,
        gcp_conn_id: str | None = None,
        impersonation_chain: str | Sequence[str] | None = None,
        image_uri: str | None = None,
        container: Mapping[str, Any] | None = None,
        model_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        raw: Mapping[str, Any] | None = None,
        project: str | None = None,
        region: str | None = None,
        endpoint: str | None = None,
        client: RestClient | None = None,
    ) -> None:
        self._gcp_conn_id, self._impersonation = gcp_conn_id, impersonation_chain
        self._image_uri, self._container = image_uri, dict(container or {})
        self._model_id, self._labels, self._raw = model_id, dict(labels or {}), dict(raw or {})
        self._project, self._region, self._endpoint = project, region, endpoint
        self._client = client

    def register(self, champion: Champion) -> Registered:
        try:
            return self._register(champion)
        except BackendUnavailableError as error:
            raise RegistryUnavailableError(f"Vertex AI's registry: {error.message}", hint=error.hint) from error
        except BackendError as error:
            text = f"Vertex AI's registry refused {champion.job_id}: {error.message}"
            raise RegistryError(text, hint=error.hint) from error

    def request(self, champion: Champion, *, parent_model: str | None) -> dict[str, Any]:
        """The body of ``models:upload``, an ``UploadModelRequest``.

        :param parent_model: the resource name of the model if there is one; else this makes it.
        """
        model = {
            "displayName": champion.model,
            "artifactUri": champion.model_uri,
            "versionDescription": described(champion)[:1000],
            "versionAliases": [ALIAS],
            "labels": {**self._labels, "mlengine-job": _label(champion.job_id), KEY_LABEL: key_of(champion)},
        }
        container = {**({"imageUri": self._image_uri} if self._image_uri else {}), **self._container}
        if container:
            model["containerSpec"] = container
        which = {"parentModel": parent_model} if parent_model else {"modelId": self._id(champion)}
        return {**which, "model": {**model, **self._raw}}

    def _register(self, champion: Champion) -> Registered:
        there = self._open(champion)
        exists = there.exists()
        version = there.find(champion) if exists else None
        made = version is None
        if version is None:
            version = there.upload(self.request(champion, parent_model=there.name if exists else None), champion)
        there.alias(version)
        log.info("%s is version %s of %s, %s", champion.job_id, version, there.name, "new" if made else "known")
        return Registered(self.name, there.name, version, made)

    def _id(self, champion: Champion) -> str:
        return self._model_id or champion.model

    def _open(self, champion: Champion) -> _Model:
        place, credentials = places.connect(
            self._gcp_conn_id,
            self._impersonation,
            project=self._project,
            region=self._region,
            endpoint=self._endpoint,
        )
        self._client = self._client or RestClient(credentials, direct=places.is_local(place.endpoint))
        parent = place.parent()
        server = f"{place.server(parent.split('/')[3])}/v1"
        return _Model(self._client, server, parent, f"{parent}/models/{self._id(champion)}")


@dataclass(frozen=True)
class _Model:
    """The calls about one model, by its resource name."""

    client: RestClient
    server: str
    parent: str
    name: str

    def exists(self) -> bool:
        return self.client.call("GET", f"{self.server}/{self.name}", missing_ok=True) is not None

    def find(self, champion: Champion) -> str | None:
        """The version that was made of this very model; the eldest, should there be two."""
        params = {"filter": f"labels.{KEY_LABEL}={key_of(champion)}"}
        answer = self.client.call("GET", f"{self.server}/{self.name}:listVersions", params=params, missing_ok=True)
        numbers = sorted(int(model["versionId"]) for model in (answer or {}).get("models", ()))
        return str(numbers[0]) if numbers else None

    def upload(self, body: Mapping[str, Any], champion: Champion) -> str:
        """The new version's number; that of an upload whose answer was lost, if it is there by now."""
        operation = self.client.create(f"{self.server}/{self.parent}/models:upload", body)
        if operation is not None:
            return str(self._wait(operation).get("modelVersionId") or "1")
        version = self.find(champion)
        if version is None:
            raise BackendUnavailableError(
                f"an upload to {self.name} had no answer, and no version of {champion.job_id} is there yet",
                hint="try again later: a version that shows up is found by its label",
            )
        return version

    def alias(self, version: str) -> None:
        """Take the aliases from whichever version has them."""
        url = f"{self.server}/{self.name}@{version}:mergeVersionAliases"
        self.client.call("POST", url, body={"versionAliases": list(ALIASES)})

    def _wait(self, operation: Mapping[str, Any]) -> Mapping[str, Any]:
        """The response of a long-running operation.

        :raises BackendError: it failed; :raises BackendUnavailableError: not over after :data:`UPLOAD_SECONDS`.
        """
        until, pause = time.monotonic() + UPLOAD_SECONDS, _FIRST_LOOK
        while not operation.get("done"):
            if time.monotonic() > until:
                raise BackendUnavailableError(f"{operation['name']} is not over after {UPLOAD_SECONDS:.0f} s")
            self.client.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            operation = self.client.call("GET", f"{self.server}/{operation['name']}") or {}
        if "error" in operation:
            raise BackendError(f"{operation.get('name')}: {operation['error'].get('message', operation['error'])}")
        response: Mapping[str, Any] = operation.get("response", {})
        return response


def _label(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "_", text.lower())[:_LABEL_LIMIT]
