"""Registers the champion in external registries. The operator and the command line use this module."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mlengine.champions.history import Champion, current
from mlengine.core.errors import PublishError, RegistryError, RegistryUnavailableError
from mlengine.core.xcoms import RegistrationXCom
from mlengine.promotion.registries import Registered, Registry
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

_MAX_CHANGES = 5  # changes of champion that one call follows; later ones are left to the next publication


@dataclass(frozen=True)
class Registration:
    """A champion and its version in each registry."""

    champion: Champion
    registered: tuple[Registered, ...]

    def to_json(self) -> RegistrationXCom:
        """The XCom of the task that registers the champion."""
        return {
            "model": self.champion.model,
            "serial": self.champion.serial,
            "job_id": self.champion.job_id,
            "registries": [one.to_json() for one in self.registered],
        }


def follow(storage: Storage, bucket: str, model: str, registries: Sequence[Registry]) -> Registration:
    """Register the current champion. If the champion changes in the meantime, register the new one as well.

    Therefore, the registries have the current champion even after concurrent calls.

    :raises PublishError: the model has no champion.
    :raises RegistryError: a registry failed; the others were still called. The error is retryable if at least one of
        the failures is.
    """
    champion = _champion(storage, bucket, model)
    for _ in range(_MAX_CHANGES):
        registration = _register(champion, registries)
        newer = _champion(storage, bucket, model)
        if newer.serial == champion.serial:
            break
        log.info("%s is now the champion of %s; updating the registries again", newer.job_id, model)
        champion = newer
    return registration


def _champion(storage: Storage, bucket: str, model: str) -> Champion:
    champion = current(storage, bucket, model)
    if champion is None:
        raise PublishError(f"model {model} has no champion", hint="publish one first")
    return champion


def _register(champion: Champion, registries: Sequence[Registry]) -> Registration:
    done: list[Registered] = []
    failed: list[RegistryError] = []
    for registry in registries:
        try:
            done.append(registry.register(champion))
        except RegistryError as error:
            log.warning("%s", error.message)
            failed.append(error)
    if failed:
        kind = RegistryUnavailableError if any(error.retryable for error in failed) else RegistryError
        hints = dict.fromkeys(error.hint for error in failed if error.hint)
        advice = f"{champion.job_id} remains the champion; fix the cause and register again, which is safe to repeat"
        raise kind("; ".join(error.message for error in failed), hint="; ".join([*hints, advice]))
    return Registration(champion, tuple(done))
