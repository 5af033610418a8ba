"""MLflow's model registry, over its own client (``pip install mlflow-skinny``), which is imported when it is used."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from mlengine.champions.history import Champion
from mlengine.core.errors import RegistryError, RegistryUnavailableError
from mlengine.promotion.registries import ALIAS, Registered, described, key_of

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

KEY_TAG = "mlengine.key"
_AGAIN = frozenset({"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "INTERNAL_ERROR"})


class MlflowRegistry:
    """:class:`~mlengine.promotion.registries.Registry` on an MLflow tracking server.

    :param tracking_uri: the server, ``http://…``; ``MLFLOW_TRACKING_URI`` if empty. Who may write is MLflow's own
        business: it reads ``MLFLOW_TRACKING_USERNAME``, ``…_PASSWORD`` or ``…_TOKEN``.
    :param model_name: what the model is called there; the model's name here if empty.

    A version's source is the model's folder in the bucket: nothing is copied.
    """

    name = "mlflow"

    def __init__(
        self, *, gcp_conn_id: str | None = None, tracking_uri: str | None = None, model_name: str | None = None
    ) -> None:
        del gcp_conn_id  # every registry is given one; this has no use for it
        self._tracking_uri, self._model_name = tracking_uri, model_name

    def register(self, champion: Champion) -> Registered:
        client = self._client()
        name = self._model_name or champion.model
        version, made = _asked(lambda: _version(client, name, champion), champion)
        log.info("%s is version %s of %s in MLflow, %s", champion.job_id, version, name, "new" if made else "known")
        return Registered(self.name, name, version, made)

    def _client(self) -> Any:
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise RegistryError(
                f"no client of MLflow's: {error}", hint="pip install mlflow-skinny beside Airflow"
            ) from error
        return MlflowClient(tracking_uri=self._tracking_uri, registry_uri=self._tracking_uri)


def _version(client: Any, name: str, champion: Champion) -> tuple[str, bool]:
    """Its version of this very model, with the alias on it, and whether it was made now."""
    try:
        client.create_registered_model(name)
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise
    found = client.search_model_versions(f"name = '{name}' and tags.`{KEY_TAG}` = '{key_of(champion)}'")
    version = min((int(one.version) for one in found), default=None)
    made = version is None
    if version is None:
        version = int(client.create_model_version(
            name, source=champion.model_uri, tags=_tags(champion), description=described(champion)
        ).version)  # fmt: skip
    client.set_registered_model_alias(name, ALIAS, str(version))
    return str(version), made


def _tags(champion: Champion) -> dict[str, str]:
    tags = {
        KEY_TAG: key_of(champion),
        "mlengine.job": champion.job_id,
        "mlengine.job_dir": champion.job_dir,
        "mlengine.verdict": champion.verdict,
        "mlengine.accuracy": "" if champion.accuracy is None else str(champion.accuracy),
        "mlengine.dataset": f"{champion.dataset.get('name', '')} {champion.version}".strip(),
    }
    return {name: value for name, value in tags.items() if value}


def _asked(call: Callable[[], tuple[str, bool]], champion: Champion) -> tuple[str, bool]:
    """The client's errors as ours."""
    import requests
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except requests.RequestException as error:
        raise RegistryUnavailableError(f"MLflow does not answer: {error}", hint="try again later") from error
    except MlflowException as error:
        text = f"MLflow refused {champion.job_id}: {error.error_code}: {error.message}"
        # Its client says so of a server that cannot be reached, too.
        if error.error_code in _AGAIN or "Max retries exceeded" in error.message:
            raise RegistryUnavailableError(text, hint="see that the server runs, then try again") from error
        raise RegistryError(text, hint="see the server's log, and who may write there") from error
