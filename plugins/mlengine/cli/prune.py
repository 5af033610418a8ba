"""``mlengine prune``: old job dirs that nothing stands on any more.

A job dir goes if nothing in it was written for so many days, and its job was rejected, has failed, was cancelled or
was never submitted; unless it was ever champion of any model, or a later run may use it again. Whatever else there is
stays, models that nobody judged among it. A lifecycle rule of the bucket cannot tell: it knows only ages. The command
only says what it would delete; ``--yes`` deletes. Packages, dataset versions and the history of champions stay.

Where a backend does not answer, nothing is deleted. A job of which nobody can say how it ended is kept.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlengine.backends import TrainingBackend
from mlengine.champions.history import Champion
from mlengine.cli import say
from mlengine.cli.models import add_bucket, bucket_of
from mlengine.cli.reap import Backends, elsewhere
from mlengine.core import layout
from mlengine.core.errors import MlengineError, StorageConflictError
from mlengine.core.job import JobRecord, JobState
from mlengine.core.layout import JobDir
from mlengine.core.verdict import Decision
from mlengine.jobs.job_dir import marks
from mlengine.storage.client import ObjectStat, Storage
from mlengine.validation import cache
from mlengine.validation.report import load_report

_DAY = 86_400.0


@dataclass(frozen=True)
class OldJob:
    """A job dir, with its objects as they were seen."""

    job_dir: JobDir
    objects: Sequence[ObjectStat]

    @property
    def written(self) -> float:
        """When its newest object was, in seconds since the epoch."""
        return max(stat.written for stat in self.objects)

    @property
    def size(self) -> int:
        return sum(stat.size for stat in self.objects)

    @property
    def claimed(self) -> bool:
        return any(stat.uri == self.job_dir.claim for stat in self.objects)

    @property
    def marked(self) -> bool:
        """Whether it is a job dir at all: claimed, or with a mark that was made before. Other folders are others'."""
        return self.claimed or any(stat.uri in marks(self.job_dir) for stat in self.objects)


def register(commands: Any) -> None:
    parser = commands.add_parser("prune", help="find old job dirs that nothing stands on; --yes deletes them")
    parser.add_argument("--older-than", type=_days, required=True, metavar="DAYS", help="nothing written for so long")
    parser.add_argument("--model", help="of this model only")
    add_bucket(parser)
    parser.add_argument("--state-dir", metavar="DIR", help="where the local backend keeps its jobs")
    parser.add_argument("--project", help="of jobs on Vertex AI (AIRFLOW__MLENGINE__VERTEX_PROJECT)")
    parser.add_argument(
        "--region", help="of those whose claim and job file name none (AIRFLOW__MLENGINE__VERTEX_REGION)"
    )
    parser.add_argument("--yes", action="store_true", help="delete them")
    parser.set_defaults(handler=_prune)


def _days(text: str) -> int:
    days = int(text)
    if days < 1:
        raise argparse.ArgumentTypeError("at least one day: a run may still be on its way to the gate")
    return days


def _prune(args: argparse.Namespace) -> int:
    storage, backends, bucket = Storage(), Backends(args), bucket_of(args)
    before = time.time() - args.older_than * _DAY
    models = _models(storage, bucket)
    found = [
        old
        for model in ([args.model] if args.model else models)
        for old in old_jobs(storage, bucket, model, before)
        if may_go(storage, backends.get, old)
    ]
    kept = stood_on(storage, bucket, models)  # as late as can be
    found = [old for old in found if old.job_dir.uri not in kept]
    for old in found:
        moment = datetime.fromtimestamp(old.written, UTC).strftime("%Y-%m-%d")
        say(f"{old.job_dir.uri}  last written {moment}, {len(old.objects)} objects, {old.size / 2**20:.1f} MiB")
    if args.yes:
        found = [old for old in found if remove(storage, old)]
    size = sum(old.size for old in found) / 2**20
    what = "deleted" if args.yes else "would be deleted; --yes deletes them"
    say(f"{len(found)} job dir{'s' * (len(found) > 1)}, {size:.1f} MiB: {what}" if found else "nothing to delete")
    return 0


def _models(storage: Storage, bucket: str) -> list[str]:
    names = storage.list_dirs(bucket)
    return [name for name in names if layout.NAME.match(name) and name not in layout.RESERVED_NAMES]


def old_jobs(storage: Storage, bucket: str, model: str, before: float) -> Iterator[OldJob]:
    """Job dirs below a model's prefix in which nothing was written since ``before``.

    Of the dirs ``D, D_2, D_3`` that a task took as it was cleared again and again, only the last: a submission walks
    along them, and would stop at a gap.
    """
    prefix = layout.model_prefix(bucket, model)
    dirs: defaultdict[str, list[ObjectStat]] = defaultdict(list)
    for stat in storage.ls(prefix):
        name, below, _ = stat.uri.removeprefix(prefix).partition("/")
        if below and name not in layout.NO_JOBS:
            dirs[name].append(stat)
    for name, objects in sorted(dirs.items()):
        old = OldJob(JobDir(layout.join(prefix, name)), objects)
        if old.marked and old.written < before and not _is_followed(name, dirs):
            yield old


def _is_followed(name: str, names: Container[str]) -> bool:
    """Whether there is ``D_2`` of ``D``, or ``D_3`` of ``D_2``."""
    first, _, number = name.rpartition("_")
    return f"{name}_2" in names or (number.isdecimal() and f"{first}_{int(number) + 1}" in names)


def stood_on(storage: Storage, bucket: str, models: Sequence[str]) -> set[str]:
    """The dirs of all that were ever champion, rolled back or not, and of those that later runs may use again.

    :param models: all of the bucket: one may be published under another model's name than it was trained under.

    :raises PublishError: an entry of a history cannot be read: then nobody knows what is to be kept.
    """
    kept = set()
    for model in models:
        for stat in storage.ls(layout.champion_entries(bucket, model)):
            kept.add(Champion.from_bytes(storage.read(stat.uri), stat.uri).job_dir)
        for stat in storage.ls(layout.validated_entries(bucket, model)):
            data = storage.read(stat.uri)
            with suppress(MlengineError):  # a damaged entry names no job that anybody would use again
                kept.add(cache.Entry.from_bytes(data).job_dir)
    return {uri.rstrip("/") for uri in kept}


def may_go(storage: Storage, backend: Callable[[str], TrainingBackend], old: OldJob) -> bool:
    """Whether nothing came of a job for certain: the gate rejected it, or its backend says that it failed."""
    if not old.claimed:
        return True  # prepared, and never submitted
    try:
        record = JobRecord.from_bytes(storage.read(old.job_dir.claim))
        if any(stat.uri == old.job_dir.report for stat in old.objects):
            return load_report(storage, old.job_dir).verdict.decision is Decision.REJECTED
    except MlengineError as error:
        if error.retryable:
            raise
        say(f"{old.job_dir.uri} is kept: {error.message}")
        return False
    why = _not_failed(backend(record.backend), record, old.job_dir)
    if why:
        say(f"{old.job_dir.uri} is kept: {why}")
    return not why


def _not_failed(backend: TrainingBackend, record: JobRecord, job_dir: JobDir) -> str:
    """Why a job is not known to have failed; empty if it is."""
    handle = record.handle(job_dir.uri)
    if handle is None:
        return "it was claimed, and nobody noted its job"
    if elsewhere(backend, handle):
        return "its job is another host's"
    state = backend.describe([handle])[0].state
    return "" if state.terminal and state is not JobState.SUCCEEDED else f"its job is {state.value}"


def remove(storage: Storage, old: OldJob) -> bool:
    """The claim first, so that nobody goes on with a job that is half there; the marks last; and only what was seen.

    Cut off in between, the rest is found by the next ``prune``. A dir that was claimed anew meanwhile is left alone:
    then the answer is ``False``.
    """
    claims = [stat for stat in old.objects if stat.uri == old.job_dir.claim]
    try:
        for stat in claims:
            storage.delete(stat.uri, stat.generation)
    except StorageConflictError:
        say(f"{old.job_dir.uri} is kept: it is in use again")
        return False

    def delete(stat: ObjectStat) -> None:
        with suppress(StorageConflictError):
            storage.delete(stat.uri, stat.generation)

    last = [stat for stat in old.objects if stat.uri in marks(old.job_dir)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(delete, (stat for stat in old.objects if stat not in claims and stat not in last)))
    for stat in last:
        delete(stat)
    return True
