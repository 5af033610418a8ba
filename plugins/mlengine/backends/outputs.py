"""Detects jobs that succeeded without writing anything.

A trainer that does not recognise its role, for example because ``TF_CONFIG`` has another name for the chief, often ends
at once with exit code 0. By that exit code its job has succeeded, so only the message of the job's state can say that
nothing was written.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from mlengine.core.cluster import has_cluster
from mlengine.core.job import JobHandle
from mlengine.core.layout import KEEP, join
from mlengine.core.spec import TrainingSpec

log = logging.getLogger(__name__)

PAUSE_SECONDS = 60.0
THREADS = 8
# The output directories of our contract, and the target of AIP_CHECKPOINT_DIR in jobs of other clients.
_FOLDERS = ("model/", "train/", "checkpoints/")


class _Object(Protocol):
    @property
    def uri(self) -> str: ...


class ListsObjects(Protocol):
    """The one method of :class:`mlengine.storage.client.Storage` that this module uses."""

    def ls(self, prefix: str) -> Sequence[_Object]:
        """All objects whose URI starts with ``prefix``."""


def wrote_nothing(storage: ListsObjects, job_dir: str) -> bool:
    """Whether the job dir's output directories contain no object that the trainer wrote.

    :raises StorageError: the bucket cannot be read.
    """
    return not any(
        not stat.uri.endswith(("/", f"/{KEEP}")) for folder in _FOLDERS for stat in storage.ls(join(job_dir, folder))
    )


def warning(spec: TrainingSpec | None, seconds: float | None = None) -> str:
    """The message for a job that succeeded without output.

    :param spec: the job's spec, from which the chief's name in ``TF_CONFIG`` is read; ``None`` if unknown.
    :param seconds: the run time of the chief; ``None`` if unknown.
    """
    after = "" if seconds is None else f" after {seconds:.1f} s"
    message = f"the chief ended with exit code 0{after}, but wrote nothing below model/ or train/"
    if spec is None or not has_cluster(spec):
        return message
    named = f'{message}; TF_CONFIG calls it "{spec.primary_name}"'
    return f"{named}: if the trainer expects the other name, set useChiefInTfConfig" if _by_file(spec) else named


class OutputCheck:
    """Lists the outputs of each succeeded job once, for a backend that only knows the job's state.

    A few threads list the outputs of many jobs at the same time. A poll waits for them only for a while, so they do
    not delay the news that other jobs have ended. After an error, all threads pause for :data:`PAUSE_SECONDS`.

    :param open_storage: opens the storage with the backend's credentials; called when a job has succeeded.
    """

    def __init__(self, open_storage: Callable[[], ListsObjects]) -> None:
        self._open_storage = open_storage
        self._messages: dict[str, str] = {}
        self._paused_until = 0.0
        self._done = threading.Condition()
        self._queue: deque[JobHandle] = deque()
        self._unfinished: set[str] = set()
        self._threads = 0

    def run(self, handles: Sequence[JobHandle], seconds: float) -> None:
        """Check the succeeded jobs that have not been checked yet.

        :param seconds: the longest wait for the results. Checks that take longer continue in the background.
        """
        with self._done:
            if time.monotonic() < self._paused_until:
                return
            names = set()
            for handle in handles:
                if handle.job_dir and handle.name not in self._messages:
                    names.add(handle.name)
                    if handle.name not in self._unfinished:
                        self._unfinished.add(handle.name)
                        self._queue.append(handle)
            while self._threads < min(THREADS, len(self._unfinished)):
                self._threads += 1
                threading.Thread(target=self._work, name="mlengine-outputs", daemon=True).start()
            self._done.wait_for(lambda: names.isdisjoint(self._unfinished), seconds)

    def message(self, handle: JobHandle) -> str:
        """The warning for a succeeded job; ``""`` if the job wrote something, or if that is not known yet."""
        return self._messages.get(handle.name, "")

    def _work(self) -> None:
        while True:
            with self._done:
                if not self._queue:
                    self._threads -= 1
                    return
                handle = self._queue.popleft()
            try:
                self._check(handle)
            finally:
                with self._done:
                    self._unfinished.discard(handle.name)
                    self._done.notify_all()

    def _check(self, handle: JobHandle) -> None:
        if time.monotonic() < self._paused_until:
            return
        try:
            empty = wrote_nothing(self._open_storage(), handle.job_dir)
        except Exception as error:  # noqa: BLE001 an error would only end this thread
            log.info("job %s: cannot list its outputs: %s", handle.job_id, error)
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            return
        self._messages[handle.name] = warning(None) if empty else ""
        if empty:
            log.warning("job %s: %s", handle.job_id, warning(None))


def _by_file(spec: TrainingSpec) -> bool:
    """Whether the job file decides the chief's name: Vertex AI's own job format has no field for it."""
    return spec.single_replica_tf_config
