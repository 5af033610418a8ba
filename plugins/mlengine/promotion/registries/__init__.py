"""External model registries that follow the champion: the interface and the available registries.

The champion's pointer in the bucket is authoritative. After a publication, each registry gets a version of the model,
and its alias is moved to that version. Each adapter imports its client library on first use.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from mlengine.champions.history import Champion
from mlengine.core.errors import RegistryError
from mlengine.core.metrics import format_value
from mlengine.core.xcoms import RegisteredXCom

ALIAS = "champion"


@dataclass(frozen=True)
class Registered:
    """The champion's version in a registry. ``created`` is false if the version already existed."""

    registry: str
    name: str
    version: str
    created: bool

    def to_json(self) -> RegisteredXCom:
        """The version as it appears in the XCom of the task that registers it."""
        return {"registry": self.registry, "name": self.name, "version": self.version, "created": self.created}


class Registry(Protocol):
    """A model registry."""

    name: str

    def register(self, champion: Champion) -> Registered:
        """Create a version of the champion's model, and move the alias :data:`ALIAS` to it.

        The call is idempotent, even after a crash, because an existing version is found by :func:`champion_key`. If the
        champion changes in the meantime, the caller calls this method again.

        :raises RegistryError: the registry rejects the model; a retry would not help.
        :raises RegistryUnavailableError: the registry is temporarily unavailable.
        """


# Import paths, so that only the registries in use are imported.
_REGISTRIES: dict[str, str] = {
    "vertex": "mlengine.promotion.registries.vertex:VertexRegistry",
    "mlflow": "mlengine.promotion.registries.mlflow:MlflowRegistry",
}


def register(name: str, path: str) -> None:
    """Add a registry.

    :param path: ``module:Class``. The class is called with ``gcp_conn_id`` and the registry's settings as keywords.
    """
    _REGISTRIES[name] = path


def names() -> list[str]:
    return sorted(_REGISTRIES)


def connect(
    wanted: str | Mapping[str, Any],
    gcp_conn_id: str | None = None,
    impersonation_chain: str | Sequence[str] | None = None,
) -> Registry:
    """Create a registry's adapter. This does not connect to the registry yet.

    :param wanted: a kind of registry, such as ``"vertex"``, or a mapping with settings, such as
        ``{"kind": "vertex", "region": …}``.
    :raises RegistryError: the kind or a setting is unknown.
    """
    if not isinstance(wanted, str | Mapping):
        raise RegistryError(f"invalid model registry: {wanted!r}", hint="use vertex, or {kind: vertex, region: …}")
    settings: dict[str, Any] = {"kind": wanted} if isinstance(wanted, str) else dict(wanted)
    kind = str(settings.pop("kind", ""))
    if kind not in _REGISTRIES:
        raise RegistryError(f"unknown model registry {kind!r}", hint=f"use one of: {', '.join(names())}")
    module, _, attribute = _REGISTRIES[kind].partition(":")
    factory: Callable[..., Registry] = getattr(import_module(module), attribute)
    if impersonation_chain and "impersonation_chain" in inspect.signature(factory).parameters:
        settings.setdefault("impersonation_chain", impersonation_chain)
    try:
        return factory(gcp_conn_id=gcp_conn_id, **settings)
    except TypeError as error:
        raise RegistryError(
            f"invalid settings for the registry {kind}: {error}", hint="see docs/validation.md for its settings"
        ) from error


def champion_key(champion: Champion) -> str:
    """The key that identifies the champion's version in a registry. A model that is republished has the same key."""
    return hashlib.sha256(f"{champion.job_dir}\n{champion.fingerprint}".encode()).hexdigest()[:40]


def description(champion: Champion) -> str:
    """A one-line description of the version."""
    measured = "" if champion.metric_value is None else f", {champion.metric} {format_value(champion.metric_value)}"
    version = f", trained on {champion.dataset.get('name')} {champion.version}" if champion.version else ""
    return (
        f"{champion.job_id}: champion {champion.serial} of {champion.model}{measured}{version}. {champion.why}".strip()
    )


def connect_all(
    wanted: Sequence[str | Mapping[str, Any]],
    gcp_conn_id: str | None = None,
    impersonation_chain: str | Sequence[str] | None = None,
) -> list[Registry]:
    """Create the adapters of several registries, so that invalid settings are reported before any registry is used."""
    return [connect(one, gcp_conn_id, impersonation_chain) for one in wanted]
