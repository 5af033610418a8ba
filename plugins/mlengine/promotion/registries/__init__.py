"""Model registries elsewhere that follow the champion: the seam, and those there are.

The champion's pointer in the bucket is the truth. A registry gets a copy of what it says, after the swap: a version of
the model, and an alias on the version that is champion. Each adapter imports its client when it is used.
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
from mlengine.core.xcoms import RegisteredXCom

ALIAS = "champion"


@dataclass(frozen=True)
class Registered:
    """What a registry calls the champion. ``made`` is false if it had this very model already."""

    registry: str
    name: str
    version: str
    made: bool

    def to_json(self) -> RegisteredXCom:
        """As the task that registers it returns it."""
        return {"registry": self.registry, "name": self.name, "version": self.version, "made": self.made}


class Registry(Protocol):
    """A registry of models."""

    name: str

    def register(self, champion: Champion) -> Registered:
        """Make a version of the champion's model, and let the alias :data:`ALIAS` name it.

        Safe to repeat, and after a crash at any line: the version is found again by :func:`key_of`. It does not look
        at whoever is champion by now; its caller does, and calls again.

        :raises RegistryError: refused for good; :raises RegistryUnavailableError: nobody answers now.
        """


# Import paths, so that nobody pays for a registry that is not used.
_REGISTRIES: dict[str, str] = {
    "vertex": "mlengine.promotion.registries.vertex:VertexRegistry",
    "mlflow": "mlengine.promotion.registries.mlflow:MlflowRegistry",
}


def register(name: str, path: str) -> None:
    """Add a registry: ``path`` is ``module:Class``, called with ``gcp_conn_id`` and its settings as keywords."""
    _REGISTRIES[name] = path


def names() -> list[str]:
    return sorted(_REGISTRIES)


def connect(
    wanted: str | Mapping[str, Any],
    gcp_conn_id: str | None = None,
    impersonation_chain: str | Sequence[str] | None = None,
) -> Registry:
    """The registry that a DAG names: ``"vertex"``, or ``{"kind": "vertex", "region": …}`` with its settings.

    :raises RegistryError: there is none of that name, or it has no such setting. Asks nobody.
    """
    settings: dict[str, Any] = {"kind": wanted} if isinstance(wanted, str) else dict(wanted)
    kind = str(settings.pop("kind", ""))
    if kind not in _REGISTRIES:
        raise RegistryError(f"no registry of models named {kind!r}", hint=f"use one of: {', '.join(names())}")
    module, _, attribute = _REGISTRIES[kind].partition(":")
    factory: Callable[..., Registry] = getattr(import_module(module), attribute)
    if impersonation_chain and "impersonation_chain" in inspect.signature(factory).parameters:
        settings.setdefault("impersonation_chain", impersonation_chain)
    try:
        return factory(gcp_conn_id=gcp_conn_id, **settings)
    except TypeError as error:
        raise RegistryError(f"the registry {kind}: {error}", hint="see docs/gate.md for its settings") from error


def key_of(champion: Champion) -> str:
    """By which a registry's version is found again: the same model published again, or rolled back to, has it too."""
    return hashlib.sha256(f"{champion.job_dir}\n{champion.fingerprint}".encode()).hexdigest()[:40]


def described(champion: Champion) -> str:
    """One line for people who look at the registry."""
    accuracy = "" if champion.accuracy is None else f", accuracy {champion.accuracy:.4f}"
    version = f", trained on {champion.dataset.get('name')} {champion.version}" if champion.version else ""
    return (
        f"{champion.job_id}: champion {champion.serial} of {champion.model}{accuracy}{version}. {champion.why}".strip()
    )


def connect_all(
    wanted: Sequence[str | Mapping[str, Any]],
    gcp_conn_id: str | None = None,
    impersonation_chain: str | Sequence[str] | None = None,
) -> list[Registry]:
    """:func:`connect` for each, so that a wrong one is told before any is asked."""
    return [connect(one, gcp_conn_id, impersonation_chain) for one in wanted]
