"""Records since when a job is lost: ``lost.json`` in the job's folder in the bucket, so that all processes agree.

The replicas of a lost job may run on for some time. The next attempt must not start before that time has passed,
whichever process starts it, and each process of Airflow sees only a part of it. The time is measured by the bucket's
clock, since those of Airflow's machines may differ: ``lost-checked.json`` is written with every check.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

from mlengine.backends.ray.record import folder
from mlengine.core.errors import ObjectMissingError
from mlengine.core.job import JobHandle
from mlengine.core.layout import join
from mlengine.storage.client import ObjectStat

LONGEST_GAP_SECONDS = 300.0  # between two checks; in a longer gap, the job may have been found again
_JSON = "application/json"


class Objects(Protocol):
    """The methods of :class:`mlengine.storage.client.Storage` that this module uses."""

    def read(self, uri: str) -> bytes:
        """The content of an object; raises ObjectMissingError."""

    def write(self, uri: str, data: bytes, content_type: str | None = None) -> int:
        """Write an object."""

    def stat(self, uri: str) -> ObjectStat | None:
        """The metadata of an object, with the time at which it was written; ``None`` if there is no such object."""


def lost_for(
    storage: Objects, handle: JobHandle, state: Mapping[str, Any], seconds: float, *, may_return: bool
) -> bool:
    """Whether a job has been lost for ``seconds``. If it was not lost at the last check, its time begins now.

    :param state: the last state that the driver wrote. If the state has changed, the driver has run meanwhile, and the
        time begins again.
    :param may_return: whether the job may be found again, because Ray has no record of it. A job that Ray calls ended
        stays ended, however rarely it is checked.
    :raises StorageError: the bucket does not answer, or cannot be written to.
    """
    lost, checked = (join(folder(handle), name) for name in ("lost.json", "lost-checked.json"))
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
    before = _read(storage, lost)
    known = before if before.get("state") == digest else {}
    if known.get("over"):
        return True
    last = _written(storage, checked)
    storage.write(checked, b"{}", _JSON)
    now = _written(storage, checked)
    gap = now - last > LONGEST_GAP_SECONDS
    # A job that Ray had no record of may have been found again before Ray called it ended.
    just_ended = not may_return and known.get("may_return", True)
    if "since" not in known or just_ended or (may_return and gap and not known.get("rare")):
        # A second long gap does not restart the time: otherwise, a process that checks rarely would never see the loss.
        known = {"state": digest, "since": now, "rare": gap and "since" in known, "may_return": may_return}
    over = bool(now - known["since"] >= seconds)
    if known | {"over": over} != before:
        storage.write(lost, json.dumps(known | {"over": over}).encode(), _JSON)
    return over


def _read(storage: Objects, uri: str) -> dict[str, Any]:
    """The JSON content of an object; empty if the object does not exist or is invalid."""
    try:
        content = json.loads(storage.read(uri))
        return content if isinstance(content["since"], float | int) else {}
    except (ObjectMissingError, ValueError, KeyError, TypeError):
        return {}


def _written(storage: Objects, uri: str) -> float:
    """The time at which the object was written, in seconds since the epoch; 0 if there is none."""
    found = storage.stat(uri)
    return found.written if found else 0.0
