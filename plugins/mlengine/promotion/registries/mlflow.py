"""MLflow's model registry. MLflow's client (``pip install mlflow-skinny``) is imported on first use."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Any

from mlengine.champions.history import Champion
from mlengine.core.errors import RegistryError, RegistryUnavailableError
from mlengine.promotion.registries import ALIAS, Registered, champion_key, description

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

KEY_TAG = "mlengine.key"
_RETRYABLE = frozenset({"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "INTERNAL_ERROR"})


class MlflowRegistry:
    """:class:`~mlengine.promotion.registries.Registry` on an MLflow tracking server.

    A version's source is the model's folder in the bucket; no files are copied.

    :param tracking_uri: the server's URL, ``http://…``; by default ``MLFLOW_TRACKING_URI``. The client reads its
        credentials from ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``, or ``MLFLOW_TRACKING_TOKEN``.
    :param model_name: the registered model's name; by default the model's name in mlengine.
    """

    name = "mlflow"

    def __init__(
        self, *, gcp_conn_id: str | None = None, tracking_uri: str | None = None, model_name: str | None = None
    ) -> None:
        del gcp_conn_id  # unused: passed to every registry
        self._tracking_uri, self._model_name = tracking_uri, model_name

    def register(self, champion: Champion) -> Registered:
        name = self._model_name or champion.model
        make_client = self._client_class()
        version, created = _call(
            lambda: _version(make_client(self._tracking_uri, self._tracking_uri), name, champion), champion
        )
        log.info(
            "%s is version %s of %s in MLflow, %s",
            champion.job_id,
            version,
            name,
            "created" if created else "existing",
        )
        return Registered(self.name, name, version, created)

    def _client_class(self) -> Any:
        """Import the class of MLflow's client.

        :raises RegistryError: MLflow's client is not installed, or would create a database of its own.
        """
        if not (self._tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or os.environ.get("MLFLOW_REGISTRY_URI")):
            raise RegistryError(
                "no MLflow server is configured",
                hint="set tracking_uri of the registry, or MLFLOW_TRACKING_URI in the environment of Airflow",
            )
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise RegistryError(
                f"the MLflow client is not installed: {error}",
                hint="run pip install mlflow-skinny in Airflow's environment",
            ) from error
        return MlflowClient


def _version(client: Any, name: str, champion: Champion) -> tuple[str, bool]:
    """Find or create the version, and move the alias to it.

    :returns: the version's number, and whether it was created.
    """
    try:
        client.create_registered_model(name)
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise
    found = client.search_model_versions(f"name = '{name}' and tags.`{KEY_TAG}` = '{champion_key(champion)}'")
    version = min((int(one.version) for one in found), default=None)
    created = version is None
    if version is None:
        version = int(client.create_model_version(
            name, source=champion.model_uri, tags=_tags(champion), description=description(champion)
        ).version)  # fmt: skip
    client.set_registered_model_alias(name, ALIAS, str(version))
    return str(version), created


def _tags(champion: Champion) -> dict[str, str]:
    # A metric may be named recall@precision=0.9; MLflow does not accept all of these characters.
    metric = re.sub(r"[^\w. /-]", "_", champion.metric or "metric", flags=re.ASCII)
    tags = {
        KEY_TAG: champion_key(champion),
        "mlengine.job": champion.job_id,
        "mlengine.job_dir": champion.job_dir,
        "mlengine.verdict": champion.verdict,
        f"mlengine.{metric}": "" if champion.metric_value is None else str(champion.metric_value),
        "mlengine.dataset": f"{champion.dataset.get('name', '')} {champion.version}".strip(),
    }
    return {name: value for name, value in tags.items() if value}


def _call(call: Callable[[], tuple[str, bool]], champion: Champion) -> tuple[str, bool]:
    """Call the client, and convert its errors to this project's."""
    import requests
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except requests.RequestException as error:
        raise RegistryUnavailableError(
            f"MLflow does not respond: {error}", hint="check that the server is running, then try again"
        ) from error
    except MlflowException as error:
        text = f"MLflow rejected {champion.job_id}: {error.error_code}: {error.message}"
        # The client also raises this error if the server cannot be reached.
        if error.error_code in _RETRYABLE or "Max retries exceeded" in error.message:
            raise RegistryUnavailableError(text, hint="check that the server is running, then try again") from error
        raise RegistryError(text, hint="check the server's log and the permissions") from error
