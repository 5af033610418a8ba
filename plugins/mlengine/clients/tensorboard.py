"""Local copies of jobs' event files, for TensorBoard.

TensorBoard can read ``gs://`` URIs only if TensorFlow is installed, and only from Google's servers. Therefore, event
files are copied to this machine, into one folder per job, ``<model>/<job_id>``. New content is appended to the copies,
because TensorBoard follows files that grow, but not files that are replaced. Checkpoints and models are not copied.

:mod:`mlengine.runtime.tensorboard` starts TensorBoard.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from mlengine.core import layout
from mlengine.core.errors import MlengineError, ObjectMissingError, StorageConflictError, StorageError
from mlengine.core.layout import JobDir
from mlengine.storage.client import ObjectStat, Storage, crc32c_of

log = logging.getLogger(__name__)

_EVENTS = "tfevents"
_CHUNK = 8 << 20


def find_job(storage: Storage, bucket: str, word: str) -> JobDir:
    """Find a job by the URI of its job dir, by ``model/job_id``, or by its id.

    :raises StorageError: there is no such job, or more than one.
    """
    if word.startswith("gs://"):
        found = [JobDir(word.rstrip("/"))]
    elif "/" in word:
        model, _, job_id = word.partition("/")
        found = [JobDir.of(bucket, model, job_id)]
    else:
        found = [JobDir.of(bucket, model, word) for model in _models(storage, bucket)]
    found = [job_dir for job_dir in found if storage.exists(job_dir.claim) or storage.ls(job_dir.train)]
    if not found:
        raise StorageError(f"no job {word!r} in {bucket}", hint="`mlengine jobs list` lists the jobs in the bucket")
    if len(found) > 1:
        names = ", ".join(f"{job_dir.model_name}/{job_dir.job_id}" for job_dir in found)
        raise StorageError(f"{len(found)} jobs in {bucket} have the id {word!r}", hint=f"use one of: {names}")
    return found[0]


def newest_jobs(storage: Storage, bucket: str, model: str, count: int) -> list[JobDir]:
    """The jobs of a model with the newest claims, newest first."""
    dirs = [JobDir.of(bucket, model, name) for name in storage.list_dirs(layout.model_prefix(bucket, model))]
    with ThreadPoolExecutor(8) as pool:
        stats = list(pool.map(lambda job_dir: storage.stat(job_dir.claim), dirs))
    dated = [(stat.generation, job_dir) for stat, job_dir in zip(stats, dirs, strict=True) if stat is not None]
    return [job_dir for _, job_dir in sorted(dated, key=lambda pair: pair[0], reverse=True)[:count]]


def _models(storage: Storage, bucket: str) -> list[str]:
    names = storage.list_dirs(bucket)
    return [name for name in names if name not in layout.RESERVED_NAMES and layout.NAME.match(name)]


@dataclass
class Mirror:
    """Local copies of jobs' event files.

    :param folder: the log directory of TensorBoard.
    """

    storage: Storage
    folder: Path
    _generations: dict[str, int] = field(default_factory=dict)

    def sync(self, jobs: Sequence[JobDir]) -> int:
        """Copy new content.

        If a job's files are temporarily unavailable, a message is logged, and the next call reads them.

        :returns: the number of files that have changed.
        """
        return sum(self._sync_job(job_dir) for job_dir in jobs)

    def _sync_job(self, job_dir: JobDir) -> int:
        changed = 0
        try:
            # Event files are in the train dir, or in the log dir of a job with a TensorBoard instance in Vertex AI.
            found = [(root, stat) for root in (job_dir.train, job_dir.logs) for stat in self.storage.ls(root)]
            for root, stat in found:
                if _EVENTS in stat.uri.rpartition("/")[2] and self._generations.get(stat.uri) != stat.generation:
                    self._fetch(stat, self._place(job_dir, stat, root))
                    self._generations[stat.uri] = stat.generation
                    changed += 1
        except (ObjectMissingError, StorageConflictError):
            log.info("%s: an event file was deleted or changed while it was read", job_dir.uri)
        except MlengineError as error:
            if not error.retryable:
                raise
            log.warning("%s: %s", job_dir.uri, error.message)
        return changed

    def _place(self, job_dir: JobDir, stat: ObjectStat, parent: str) -> Path:
        """The path of an object's local copy.

        :raises StorageError: the object's name leads to a path outside of the folder.
        """
        root = (self.folder / job_dir.model_name / job_dir.job_id).resolve()
        place = (root / stat.uri[len(parent) :]).resolve()
        if root.parent.parent != self.folder.resolve() or not place.is_relative_to(root):
            raise StorageError(
                f"the name of an event file points outside its directory: {stat.uri}",
                hint="delete or rename that object",
            )
        return place

    def _fetch(self, stat: ObjectStat, place: Path) -> None:
        """Append the bytes that the local copy does not have. If the object was replaced, copy it again."""
        place.parent.mkdir(parents=True, exist_ok=True)
        have = place.stat().st_size if place.exists() else 0
        if have <= stat.size:
            self._append(stat, place, have)
        if have > stat.size or (have and stat.crc32c not in {None, crc32c_of(place)}):
            place.unlink()
            self._append(stat, place, 0)

    def _append(self, stat: ObjectStat, place: Path, have: int) -> None:
        """Append the object's bytes from position ``have`` on.

        :raises StorageConflictError: the object has changed since it was listed.
        """
        with place.open("ab") as sink:
            while have < stat.size:
                part = self.storage.read_range(
                    stat.uri, have, min(stat.size, have + _CHUNK), generation=stat.generation
                )
                if not part:
                    return
                sink.write(part)
                have += len(part)
