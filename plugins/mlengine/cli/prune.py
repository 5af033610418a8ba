"""``mlengine prune``: old job dirs that nothing refers to any more.

A job dir goes if nothing in it was written for so many days, and its job was rejected, has failed, was cancelled or
was never submitted; unless it was ever champion of any model, or a later run may use it again. Whatever else there is
stays, models that nobody validated among it. A lifecycle rule of the bucket cannot tell: it knows only ages. The
command only says what it would delete; ``--yes`` deletes. Packages, dataset versions and the history of champions stay.

Only what a job brought is deleted. A dir in which something lay before the job claimed it is kept, with all that the
job added; of a dir that no job claimed, no more than the empty marks ``train/.keep`` and ``model/.keep`` goes.

Where a backend does not answer, nothing is deleted. A job of which nobody can say how it ended is kept.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from mlengine.backends import TrainingBackend
from mlengine.champions.history import Champion
from mlengine.cli import say
from mlengine.cli.options import Commands, add_bucket, bucket_of
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
# What a deletion that was cut off leaves to say what was still to go; deleted last.
_JOURNAL = ".mlengine-prune.json"
# As PrepareJobDirOperator names dirs: digits of the key, and a number if the name was taken.
_OWN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*_[0-9a-f]{8}(_[0-9]+)?")


@dataclass(frozen=True)
class OldJob:
    """A job dir, with its objects as they were seen, but for the journal of a deletion that was cut off."""

    job_dir: JobDir
    objects: Sequence[ObjectStat]
    journal: ObjectStat | None = None

    @property
    def written(self) -> float:
        """When its newest object was, in seconds since the epoch."""
        return max((stat.written for stat in self.objects), default=0.0)

    @property
    def size(self) -> int:
        return sum(stat.size for stat in self.objects)

    @property
    def claimed(self) -> bool:
        return any(stat.uri == self.job_dir.claim for stat in self.objects)

    @property
    def only_marks(self) -> bool:
        """Whether it was prepared for a job, and holds nothing else. Other folders are others'."""
        empty = all(stat.uri in marks(self.job_dir) and stat.size == 0 for stat in self.objects)
        return empty and _OWN_NAME.fullmatch(self.job_dir.job_id) is not None


def register(commands: Commands) -> None:
    parser = commands.add_parser("prune", help="find old job dirs that nothing refers to; --yes deletes them")
    parser.add_argument("--older-than", type=_days, required=True, metavar="DAYS", help="nothing written for so long")
    parser.add_argument("--model", help="of this model only")
    add_bucket(parser)
    parser.add_argument("--state-dir", metavar="DIR", help="where the local backend keeps its jobs")
    parser.add_argument("--project", help="of jobs on Vertex AI (default: the setting vertex_project)")
    parser.add_argument(
        "--region", help="of those whose claim and job file name none (default: the setting vertex_region)"
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
    kept = referred_to(storage, bucket, models)  # as late as can be
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
        old = _as_old_job(storage, JobDir(layout.join(prefix, name)), objects)
        known = old.claimed or old.journal is not None or old.only_marks
        if known and old.written < before and not _is_followed(name, dirs):
            yield old


def _as_old_job(storage: Storage, job_dir: JobDir, objects: Sequence[ObjectStat]) -> OldJob:
    """Where an earlier deletion was cut off after the claim was gone, the objects are those it has left."""
    journal = next((stat for stat in objects if stat.uri == layout.join(job_dir.uri, _JOURNAL)), None)
    others = [stat for stat in objects if stat is not journal]
    if journal is not None and not any(stat.uri == job_dir.claim for stat in others):
        listed = _read_journal(storage, journal)
        others = [stat for stat in others if (stat.uri, stat.generation) in listed]
    return OldJob(job_dir, others, journal)


def _read_journal(storage: Storage, journal: ObjectStat) -> set[tuple[str, int]]:
    """The objects, with their generations, that were to be deleted; none if it is not a journal of ours."""
    try:
        return {(str(uri), int(generation)) for uri, generation in json.loads(storage.read(journal.uri))["deleting"]}
    except (ValueError, TypeError, KeyError):
        return set()


def _is_followed(name: str, names: Container[str]) -> bool:
    """Whether there is ``D_2`` of ``D``, or ``D_3`` of ``D_2``."""
    first, _, number = name.rpartition("_")
    return f"{name}_2" in names or (number.isdecimal() and f"{first}_{int(number) + 1}" in names)


def referred_to(storage: Storage, bucket: str, models: Sequence[str]) -> set[str]:
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
        return True  # prepared and never submitted, or the rest of a deletion that was cut off
    try:
        record = JobRecord.from_bytes(storage.read(old.job_dir.claim))
        if not record.found_empty:
            say(f"{old.job_dir.uri} is kept: it was not empty when the job began")
            return False
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
    """A journal first, then the claim, so that nobody takes up a job that is half there; and only what was seen.

    Cut off in between, the next ``prune`` goes on with what the journal lists. A dir that was claimed again meanwhile
    is left alone: then the answer is ``False``.
    """
    journal = layout.join(old.job_dir.uri, _JOURNAL)
    claims = [stat for stat in old.objects if stat.uri == old.job_dir.claim]
    if claims:
        listed = [[stat.uri, stat.generation] for stat in old.objects if stat not in claims]
        storage.write(journal, json.dumps({"deleting": listed}).encode())
    try:
        for stat in claims:
            storage.delete(stat.uri, stat.generation)
    except StorageConflictError:
        storage.delete(journal)
        say(f"{old.job_dir.uri} is kept: it is in use again")
        return False

    def delete(stat: ObjectStat) -> None:
        with suppress(StorageConflictError):
            storage.delete(stat.uri, stat.generation)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(delete, (stat for stat in old.objects if stat not in claims)))
    if claims or old.journal is not None:
        storage.delete(journal)
    return True
