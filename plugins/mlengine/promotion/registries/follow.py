"""Registries elsewhere are told who is champion: the operator and the command line do it alike."""

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

_CHANGES = 5  # of champion while registries are told, before the next task is left to tell the rest


@dataclass(frozen=True)
class Followed:
    """Who was told of, and what the registries call it."""

    champion: Champion
    registered: tuple[Registered, ...]

    def to_json(self) -> RegistrationXCom:
        """What the task that registers it returns."""
        return {
            "model": self.champion.model,
            "serial": self.champion.serial,
            "job_id": self.champion.job_id,
            "registries": [one.to_json() for one in self.registered],
        }


def follow(storage: Storage, bucket: str, model: str, registries: Sequence[Registry]) -> Followed:
    """Register whoever is champion now; again, should that change meanwhile.

    So whichever of several callers is the last to end leaves the registries right.

    :raises PublishError: nobody is champion.
    :raises RegistryError: some refused; every one was asked. It may pass if one of them may.
    """
    champion = _champion(storage, bucket, model)
    for _ in range(_CHANGES):
        followed = _tell(champion, registries)
        newer = _champion(storage, bucket, model)
        if newer.serial == champion.serial:
            break
        log.info("%s is champion of %s by now: registries are told again", newer.job_id, model)
        champion = newer
    return followed


def _champion(storage: Storage, bucket: str, model: str) -> Champion:
    champion = current(storage, bucket, model)
    if champion is None:
        raise PublishError(f"model {model} has no champion", hint="publish one first")
    return champion


def _tell(champion: Champion, registries: Sequence[Registry]) -> Followed:
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
        advice = f"{champion.job_id} is the champion all the same; then do this again, which repeats nothing"
        raise kind("; ".join(error.message for error in failed), hint="; ".join([*hints, advice]))
    return Followed(champion, tuple(done))
