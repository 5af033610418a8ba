"""``mlengine prune``: old job dirs that nothing stands on any more.

A job dir goes if nothing in it was written for so many days, its job has ended, it was never champion, and no later
run may use it again instead of training. A lifecycle rule of the bucket cannot tell that: it knows only ages. It only
says so; ``--yes`` deletes. Packages, dataset versions, the history of champions and other models' dirs are not touched.

Where a backend does not answer, nothing is deleted. A job of which nobody can say that it has ended is kept.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlengine import reuse
from mlengine.backends import BoundToHost, TrainingBackend
from mlengine.champions import Champion
from mlengine.cli import say
from mlengine.cli.models import add_bucket, bucket_of
from mlengine.cli.reap import Backends, elsewhere, find_unnamed
from mlengine.core import layout
from mlengine.core.errors import MlengineError, StorageConflictError
from mlengine.core.job import JobRecord
from mlengine.core.layout import JobDir
from mlengine.jobdir import marks
from mlengine.storage import ObjectStat, Storage

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
    parser.add_argument("--project", help="of jobs on Vertex AI (MLENGINE_VERTEX_PROJECT)")
    parser.add_argument("--region", help="of those whose claim and job file name none (MLENGINE_VERTEX_REGION)")
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
    names = [args.model] if args.model else [name for name in storage.list_dirs(bucket) if layout.NAME.match(name)]
    found: list[OldJob] = []
    for model in names:
        if model not in layout.RESERVED_NAMES:
            found += (old for old in old_jobs(storage, bucket, model, before) if over(storage, backends.get, old))
    for old in found:
        moment = datetime.fromtimestamp(old.written, UTC).strftime("%Y-%m-%d")
        say(f"{old.job_dir.uri}  last written {moment}, {len(old.objects)} objects, {old.size / 2**20:.1f} MiB")
    gone = [old for old in found if args.yes and remove(storage, old)]
    if args.yes:
        found = gone
    size = sum(old.size for old in found) / 2**20
    what = "deleted" if args.yes else "would be deleted; --yes deletes them"
    say(f"{len(found)} job dir{'s' * (len(found) > 1)}, {size:.1f} MiB: {what}" if found else "nothing to delete")
    return 0


def old_jobs(storage: Storage, bucket: str, model: str, before: float) -> Iterator[OldJob]:
    """Job dirs of a model in which nothing was written since ``before``, and on which nothing stands."""
    prefix = layout.model_prefix(bucket, model)
    dirs: defaultdict[str, list[ObjectStat]] = defaultdict(list)
    for stat in storage.ls(prefix):
        name, below, _ = stat.uri.removeprefix(prefix).partition("/")
        if below and name not in layout.NO_JOBS:
            dirs[name].append(stat)
    kept = stood_on(storage, bucket, model)  # after the listing: as late as can be
    for name, objects in sorted(dirs.items()):
        old = OldJob(JobDir(layout.join(prefix, name)), objects)
        if old.marked and old.written < before and old.job_dir.uri not in kept:
            yield old


def stood_on(storage: Storage, bucket: str, model: str) -> set[str]:
    """The dirs of all that were ever champion, rolled back or not, and of those that later runs may use again.

    :raises PublishError: an entry of the history cannot be read: then nobody knows what is to be kept.
    """
    entries = storage.ls(layout.champion_entries(bucket, model))
    kept = {Champion.from_bytes(storage.read(stat.uri), stat.uri).job_dir for stat in entries}
    for stat in storage.ls(layout.validated_entries(bucket, model)):
        data = storage.read(stat.uri)
        with suppress(MlengineError):  # a damaged entry names no job that anybody would use again
            kept.add(reuse.Entry.from_bytes(data).job_dir)
    return {uri.rstrip("/") for uri in kept}


def over(storage: Storage, backend: Callable[[str], TrainingBackend], old: OldJob) -> bool:
    """Whether a job has ended for certain: its backend says so, or what is only written at the end is there."""
    if not old.claimed:
        return True  # prepared, and never submitted
    try:
        record = JobRecord.from_bytes(storage.read(old.job_dir.claim))
    except MlengineError as error:
        if error.retryable:
            raise
        say(f"{old.job_dir.uri} is kept: {error.message}")
        return False
    logs = layout.join(old.job_dir.logs, f"attempt-{record.attempt}/")
    if any(stat.uri == old.job_dir.report or stat.uri.startswith(logs) for stat in old.objects):
        return True
    place = backend(record.backend)
    handle = record.handle(old.job_dir.uri)
    if handle is None and record.host and isinstance(place, BoundToHost) and record.host != place.host():
        say(f"{old.job_dir.uri} is kept: it was claimed on host {record.host}")
        return False
    handles = [handle] if handle else find_unnamed(place, record)
    if any(elsewhere(place, one) for one in handles):
        say(f"{old.job_dir.uri} is kept: its job is another host's")
        return False
    alive = [status for status in place.describe(handles) if not status.state.terminal]
    if alive:
        say(f"{old.job_dir.uri} is kept: its job is {alive[0].state.value}")
    return not alive


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
