"""Vertex AI's Model Registry. Each model of mlengine is a model in the registry, and each champion is a version of it.

The adapter uses the REST API, like the backend. The API has no request ids that make an upload idempotent. Therefore,
each version has a label with a key. The adapter searches for the key before an upload, and again after an upload
without a response.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mlengine.backends.vertex import location as locations
from mlengine.backends.vertex.client import RestClient
from mlengine.champions.history import Champion
from mlengine.core.arguments import mapping, positive
from mlengine.core.errors import BackendError, BackendUnavailableError, RegistryError, RegistryUnavailableError
from mlengine.promotion.registries import ALIAS, Registered, champion_key, description

log = logging.getLogger(__name__)

KEY_LABEL = "mlengine-key"
# If a deployment to an endpoint names no version, it uses the version with the alias "default".
ALIASES = (ALIAS, "default")
UPLOAD_SECONDS = 4 * 3600.0
_FIRST_POLL_SECONDS, _MAX_POLL_SECONDS = 1.0, 15.0
_LABEL_LIMIT = 63
_KEY_REGION = re.compile(r"/locations/(?P<region>[^/]+)/keyRings/")


class UploadFailedError(BackendError):
    """The operation that uploads a version failed."""


class VertexRegistry:
    """:class:`~mlengine.promotion.registries.Registry` in a project and a region.

    :param image_uri: the container image that serves the model, for endpoints and batch predictions. It must be in
        Artifact Registry. It is required, because Vertex AI serves only AutoML models without a container.
    :param container: further fields of the API's ``containerSpec``, such as ``{"ports": [{"containerPort": 8501}]}``.
    :param service_account: the service account that reads the model's files and the image during the upload; by
        default the service agent of Vertex AI. The account that registers the model needs permission to act as it.
    :param encryption_key: resource name of a Cloud KMS key in the region, for the model.
    :param model_id: the id of the model in the registry; by default the model's name in mlengine.
    :param labels: labels of the version.
    :param raw: fields of the API's ``model``, which override those that mlengine sets.
    :param upload_timeout_seconds: time limit of an upload, by default four hours; the ``execution_timeout`` of the task
        also applies. The upload continues after the limit, and the next call waits for it.
    :param project: the project; by default as for the backend ``vertex``.
    :param region: the region; by default as for the backend ``vertex``.
    :param endpoint: the API endpoint; by default as for the backend ``vertex``.
    :param client: a REST client to use instead of the default one.
    :raises RegistryError: there is no container image.
    :raises MlengineError: ``container``, ``labels`` or ``raw`` is neither a mapping nor a JSON object, or
        ``upload_timeout_seconds`` is not a positive number.
    """

    name = "vertex"

    def __init__(
        self,
        *,
        gcp_conn_id: str | None = None,
        impersonation_chain: str | Sequence[str] | None = None,
        image_uri: str | None = None,
        container: Mapping[str, Any] | str | None = None,
        service_account: str | None = None,
        encryption_key: str | None = None,
        model_id: str | None = None,
        labels: Mapping[str, str] | str | None = None,
        raw: Mapping[str, Any] | str | None = None,
        upload_timeout_seconds: float | str | None = None,
        project: str | None = None,
        region: str | None = None,
        endpoint: str | None = None,
        client: RestClient | None = None,
    ) -> None:
        self._gcp_conn_id, self._impersonation = gcp_conn_id, impersonation_chain
        self._image_uri, self._container = image_uri, mapping("container", container)
        self._model_id, self._labels, self._raw = model_id, mapping("labels", labels), mapping("raw", raw)
        self._service_account, self._encryption_key = service_account, encryption_key
        self._upload_seconds = positive("upload_timeout_seconds", upload_timeout_seconds) or UPLOAD_SECONDS
        self._project, self._region, self._endpoint = project, region, endpoint
        self._client = client
        if not self._has_image():
            raise RegistryError(
                "Vertex AI Model Registry: no container image is configured for the model",
                hint="set image_uri to an image in Artifact Registry that serves the model: "
                "{kind: vertex, image_uri: REGION-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE:TAG}",
            )

    def register(self, champion: Champion) -> Registered:
        try:
            return self._register(champion)
        except BackendUnavailableError as error:
            raise RegistryUnavailableError(f"Vertex AI Model Registry: {error.message}", hint=error.hint) from error
        except BackendError as error:
            text = f"Vertex AI Model Registry rejected {champion.job_id}: {error.message}"
            raise RegistryError(text, hint=error.hint) from error

    def request(self, champion: Champion, *, parent_model: str | None) -> dict[str, Any]:
        """The request body of ``models:upload``, an ``UploadModelRequest``.

        :param parent_model: the resource name of the model; ``None`` to create the model.
        """
        model = {
            "displayName": champion.model,
            "artifactUri": champion.model_uri,
            "versionDescription": description(champion)[:1000],
            "versionAliases": [ALIAS],
            "labels": {
                **self._labels,
                **mapping("labels of raw", self._raw.get("labels")),
                "mlengine-job": _label(champion.job_id),
                KEY_LABEL: champion_key(champion),
            },
        }
        container = {**({"imageUri": self._image_uri} if self._image_uri else {}), **self._container}
        if container:
            model["containerSpec"] = container
        if self._encryption_key:
            model["encryptionSpec"] = {"kmsKeyName": self._encryption_key}
        account = {"serviceAccount": self._service_account} if self._service_account else {}
        which = {"parentModel": parent_model} if parent_model else {"modelId": self._id(champion)}
        raw = {name: value for name, value in self._raw.items() if name != "labels"}  # merged above
        return {**which, **account, "model": {**model, **raw}}

    def _has_image(self) -> bool:
        written = mapping("containerSpec of raw", self._raw.get("containerSpec", self._raw.get("container_spec")))
        return bool(self._image_uri) or any(
            container.get("imageUri") or container.get("image_uri") for container in (self._container, written)
        )

    def _check_region(self, region: str) -> None:
        """Check that the encryption key can be used in this region.

        :raises RegistryError: the key is in another region.
        """
        place = _KEY_REGION.search(self._encryption_key or "")
        if place and place["region"] not in {region, "global"}:
            raise RegistryError(
                f"the registry is in {region}, but encryption_key is in {place['region']}: {self._encryption_key}",
                hint=f"use a key in {region}",
            )

    def _register(self, champion: Champion) -> Registered:
        remote = self._open(champion)
        exists = remote.exists()
        version = remote.find(champion) if exists else None
        # An upload that creates the model may already be running while the model does not exist yet.
        if version is None and remote.wait_for_uploads():
            exists, version = remote.exists(), remote.find(champion)
        created = version is None
        if version is None:
            version = self._upload(remote, champion, exists=exists)
        remote.alias(version)
        log.info(
            "%s is version %s of %s, %s",
            champion.job_id,
            version,
            remote.name,
            "created" if created else "existing",
        )
        return Registered(self.name, remote.name, version, created)

    def _upload(self, remote: _Model, champion: Champion, *, exists: bool) -> str:
        try:
            return remote.upload(self.request(champion, parent_model=remote.name if exists else None), champion)
        except BackendUnavailableError:
            raise
        except BackendError as error:
            if not exists and remote.exists():
                raise BackendUnavailableError(
                    f"another process created {remote.name} first: {error.message}", hint="try again"
                ) from error
            raise

    def _id(self, champion: Champion) -> str:
        return self._model_id or champion.model

    def _open(self, champion: Champion) -> _Model:
        location, credentials = locations.connect(
            self._gcp_conn_id,
            self._impersonation,
            project=self._project,
            region=self._region,
            endpoint=self._endpoint,
        )
        self._client = self._client or RestClient(credentials, direct=locations.is_local(location.endpoint))
        parent = location.parent()
        self._check_region(parent.rsplit("/", 1)[1])
        server = f"{location.server(parent.split('/')[3])}/v1"
        return _Model(self._client, server, parent, f"{parent}/models/{self._id(champion)}", self._upload_seconds)


@dataclass(frozen=True)
class _Model:
    """API calls for one model.

    :param server: the URL of the API.
    :param parent: the resource name of the location.
    :param name: the resource name of the model.
    :param upload_seconds: time limit of an upload.
    """

    client: RestClient
    server: str
    parent: str
    name: str
    upload_seconds: float

    def exists(self) -> bool:
        return self.client.call("GET", f"{self.server}/{self.name}", missing_ok=True) is not None

    def find(self, champion: Champion) -> str | None:
        """The version of this champion; the oldest one if there are several, and ``None`` if there is none."""
        params = {"filter": f"labels.{KEY_LABEL}={champion_key(champion)}"}
        answer = self.client.call("GET", f"{self.server}/{self.name}:listVersions", params=params, missing_ok=True)
        numbers = sorted(int(model["versionId"]) for model in (answer or {}).get("models", ()))
        return str(numbers[0]) if numbers else None

    def upload(self, body: Mapping[str, Any], champion: Champion) -> str:
        """Upload a version and return its number. If the response was lost, search for the version."""
        operation = self.client.create(f"{self.server}/{self.parent}/models:upload", body)
        if operation is not None:
            log.info("Uploading %s: %s", champion.job_id, operation.get("name"))
            return str(self._wait(operation).get("modelVersionId") or "1")
        version = self.find(champion)
        if version is None:
            raise BackendUnavailableError(
                f"no response to an upload to {self.name}, and no version of {champion.job_id} exists yet",
                hint="try again later; if the version appears, mlengine finds it by its label",
            )
        return version

    def wait_for_uploads(self) -> bool:
        """Wait for uploads that are still running, for example because an earlier call reached its time limit.

        :returns: whether there were any. This does not say whether they succeeded.
        """
        running = self._running_uploads()
        for operation in running:
            log.info("Waiting for an upload to this model that is still running: %s", operation["name"])
            with suppress(UploadFailedError):
                self._wait(operation)
        return bool(running)

    def _running_uploads(self) -> list[Mapping[str, Any]]:
        """The running operations that upload a version of this model; an empty list if they cannot be listed."""
        found: list[Mapping[str, Any]] = []
        token = ""
        while True:
            params = {"pageToken": token} if token else {}
            try:
                url = f"{self.server}/{self.name}/operations"
                answer = self.client.call("GET", url, params=params, missing_ok=True) or {}
            except BackendUnavailableError:
                raise
            except BackendError as error:
                log.info("Could not list the operations of %s: %s", self.name, error.message)
                return found
            found += [
                one
                for one in answer.get("operations", ())
                if not one.get("done") and "UploadModel" in str(one.get("metadata", {}).get("@type"))
            ]
            token = answer.get("nextPageToken", "")
            if not token:
                return found

    def alias(self, version: str) -> None:
        """Move the aliases to this version."""
        url = f"{self.server}/{self.name}@{version}:mergeVersionAliases"
        self.client.call("POST", url, body={"versionAliases": list(ALIASES)})

    def _wait(self, operation: Mapping[str, Any]) -> Mapping[str, Any]:
        """Wait for a long-running operation and return its response.

        :raises UploadFailedError: the operation failed.
        :raises BackendUnavailableError: the operation was not done after ``upload_seconds``.
        """
        until, pause = time.monotonic() + self.upload_seconds, _FIRST_POLL_SECONDS
        while not operation.get("done"):
            if time.monotonic() > until:
                raise BackendUnavailableError(
                    f"{operation['name']} was not done after {self.upload_seconds:g} s",
                    hint="the upload continues; the next try waits for it and finds its version. To wait longer, set "
                    "upload_timeout_seconds of the registry",
                )
            self.client.sleep(pause)
            pause = min(pause * 2, _MAX_POLL_SECONDS)
            operation = self.client.call("GET", f"{self.server}/{operation['name']}") or {}
        if "error" in operation:
            raise UploadFailedError(f"{operation.get('name')}: {operation['error'].get('message', operation['error'])}")
        response: Mapping[str, Any] = operation.get("response", {})
        return response


def _label(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "_", text.lower())[:_LABEL_LIMIT]
