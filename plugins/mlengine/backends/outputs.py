"""Whether a job that succeeded wrote anything.

A trainer that does not recognise its role, say for another name of the chief in ``TF_CONFIG``, often ends at once with
exit code 0. Its job has succeeded, as the exit code decides that; the message of the state says that it left nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from mlengine.core.cluster import has_cluster
from mlengine.core.errors import MlengineError
from mlengine.core.job import JobHandle
from mlengine.core.layout import KEEP, join
from mlengine.core.spec import TrainingSpec

log = logging.getLogger(__name__)

PAUSE_SECONDS = 60.0
# Where trainers write: by our contract, and where AIP_CHECKPOINT_DIR of other clients' jobs points.
_FOLDERS = ("model/", "train/", "checkpoints/")


class _Object(Protocol):
    @property
    def uri(self) -> str: ...


class ListsObjects(Protocol):
    """As much of :class:`mlengine.storage.client.Storage` as is needed here."""

    def ls(self, prefix: str) -> Sequence[_Object]:
        """Every object whose URI starts with ``prefix``."""


def wrote_nothing(storage: ListsObjects, job_dir: str) -> bool:
    """Whether no object of the trainer's is below the job dir's output folders.

    :raises StorageError: the bucket cannot be read.
    """
    return not any(
        not stat.uri.endswith(("/", f"/{KEEP}")) for folder in _FOLDERS for stat in storage.ls(join(job_dir, folder))
    )


def warning(spec: TrainingSpec | None, seconds: float | None = None) -> str:
    """What the state of a job says that succeeded and wrote nothing.

    :param spec: if known, for the name that ``TF_CONFIG`` gives the chief.
    :param seconds: if known, how long the chief ran.
    """
    after = "" if seconds is None else f" after {seconds:.1f} s"
    message = f"the chief ended with exit code 0{after}, but wrote nothing below model/ or train/"
    if spec is None or not has_cluster(spec):
        return message
    named = f'{message}; TF_CONFIG calls it "{spec.primary_name}"'
    return f"{named}: if the trainer knows it by its other name, set useChiefInTfConfig" if _by_file(spec) else named


class OutputCheck:
    """Lists the outputs of each succeeded job once, for a backend that knows only the job's state.

    After an error it pauses: one poll may report a thousand ended jobs, and must not wait for a thousand errors.

    :param open_storage: with the backend's credentials; called when a job has succeeded.
    """

    def __init__(self, open_storage: Callable[[], ListsObjects]) -> None:
        self._open_storage = open_storage
        self._messages: dict[str, str] = {}
        self._paused_until = 0.0

    def message(self, handle: JobHandle) -> str:
        """What the state of a job that succeeded says; ``""`` if it wrote something, or that is not known."""
        if handle.name not in self._messages and handle.job_dir and time.monotonic() >= self._paused_until:
            try:
                empty = wrote_nothing(self._open_storage(), handle.job_dir)
            except MlengineError as error:
                log.info("job %s: cannot list its outputs: %s", handle.job_id, error.message)
                self._paused_until = time.monotonic() + PAUSE_SECONDS
                return ""
            self._messages[handle.name] = warning(None) if empty else ""
            if empty:
                log.warning("job %s: %s", handle.job_id, warning(None))
        return self._messages.get(handle.name, "")


def _by_file(spec: TrainingSpec) -> bool:
    """Whether the job file decides what the chief is called: Vertex AI's own format has no field for it."""
    return spec.single_replica_tf_config
