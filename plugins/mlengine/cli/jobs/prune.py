"""``mlengine jobs prune``: delete old job dirs that nothing refers to.

A job dir is deleted if nothing was written in it for a number of days, and its job was rejected, failed, cancelled or
never submitted. It is kept if the job was ever the champion of any model, or if a later run may reuse it. Everything
else is kept, including models that were not validated. (A lifecycle rule of the bucket knows only the age of an
object.) Without ``--yes``, the command only lists what it would delete. Packages, dataset versions and the history of
champions are kept.

A job dir is deleted with everything that was put into it since the job claimed it. If it was not empty before that, or
contains another job, all of it is kept. In a dir that no job claimed, only the empty objects ``train/.keep`` and
``model/.keep`` are deleted.

If a backend does not answer, nothing is deleted. A job is kept if its result is unknown or its backend cannot be used
here. A job that is published, or a dir that is written to, while the command runs is also kept, because both are read
again before each deletion.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from mlengine.backends import TrainingBackend
from mlengine.champions.history import Champion, current
from mlengine.cli.documents import PrunedDocument
from mlengine.cli.jobs.reap import Backends, elsewhere
from mlengine.cli.options import Commands, add_backend_options, add_bucket, add_command, add_json, bucket_of, count
from mlengine.cli.output import note, say, say_json, say_table, utc
from mlengine.core import layout
from mlengine.core.errors import MlengineError, StorageConflictError
from mlengine.core.job import JobRecord, JobState
from mlengine.core.layout import JobDir
from mlengine.core.plural import number_of
from mlengine.core.verdict import Decision
from mlengine.jobs.job_dir import marks
from mlengine.storage.client import ObjectStat, Storage
from mlengine.validation import cache
from mlengine.validation.report import load_report

_DAY = 86_400.0
# The journal lists the objects to delete, so that an interrupted deletion can be completed. It is deleted last.
_JOURNAL = ".mlengine-prune.json"
_ABOUT = """\
List the job dirs of rejected, failed, cancelled and never submitted jobs that nothing refers to; --yes deletes them.
Accepted and unvalidated models, champions, packages and dataset versions are always kept.
"""
# The path, below a job dir, of another job's claim.
_OTHER_JOB = re.compile(r"^/.+/job\.json$")
# The names that PrepareJobDirOperator generates, with digits of the key, and a number if the name was in use.
_OWN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*_[0-9a-f]{8}(_[0-9]+)?")


@dataclass(frozen=True)
class OldJob:
    """A job dir and its objects when it was listed, without the journal of an interrupted deletion."""

    job_dir: JobDir
    objects: Sequence[ObjectStat]
    journal: ObjectStat | None = None

    @property
    def written(self) -> float:
        """The time at which the newest object was written, in seconds since the epoch."""
        return max((stat.written for stat in self.objects), default=0.0)

    @property
    def size(self) -> int:
        """The total size of all objects in bytes."""
        return sum(stat.size for stat in self.objects)

    @property
    def claimed(self) -> bool:
        """Whether a job has claimed the dir."""
        return any(stat.uri == self.job_dir.claim for stat in self.objects)

    @property
    def only_marks(self) -> bool:
        """Whether the dir was prepared for a job and contains nothing else. Other folders do not belong to mlengine."""
        empty = all(stat.uri in marks(self.job_dir) and stat.size == 0 for stat in self.objects)
        return empty and _OWN_NAME.fullmatch(self.job_dir.job_id) is not None


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "prune", "list old job dirs that nothing refers to; --yes deletes them", _ABOUT)
    parser.add_argument(
        "--older-than",
        type=count,
        required=True,
        metavar="DAYS",
        help="only job dirs in which nothing has been written for DAYS days",
    )
    parser.add_argument("--model", help="only job dirs of this model")
    add_bucket(parser, "bucket of the jobs")
    add_backend_options(parser, region=" for jobs that do not set one")
    parser.add_argument("--yes", action="store_true", help="delete the job dirs")
    add_json(parser)
    parser.set_defaults(handler=_prune)


def _prune(args: argparse.Namespace) -> int:
    storage, backends, bucket = Storage(), Backends(args), bucket_of(args)
    before = time.time() - args.older_than * _DAY
    references = References(storage, bucket)
    found = [
        old
        for model in ([args.model] if args.model else _models(storage, bucket))
        for old in old_jobs(storage, bucket, model, before)
        if may_go(storage, backends.get, old)
    ]
    kept = references.read()  # read last, to include jobs that were published meanwhile
    found = [old for old in found if not _is_or_contains(old.job_dir.uri, kept)]
    if not args.json:
        _print(found)
    deleted = [old for old in found if _remove(storage, references, old)] if args.yes else []
    if args.json:
        say_json([_document(old, deleted=old in deleted) for old in found])
    elif args.yes and found:
        say(f"deleted {_total(deleted)}")
    elif found:
        say(f"{_total(found)} would be deleted; add --yes to delete")
    return 0


def _total(found: Sequence[OldJob]) -> str:
    size = sum(old.size for old in found) / 2**20
    return f"{number_of(len(found), 'job dir')}, {size:.1f} MiB"


def _document(old: OldJob, *, deleted: bool) -> PrunedDocument:
    return {
        "job_dir": old.job_dir.uri,
        "last_written": utc(old.written),
        "objects": len(old.objects),
        "bytes": old.size,
        "deleted": deleted,
    }


def _print(found: Sequence[OldJob]) -> None:
    if not found:
        say("no job dirs to delete")
        return
    rows = [
        (
            datetime.fromtimestamp(old.written, UTC).strftime("%Y-%m-%d"),
            str(len(old.objects)),
            f"{old.size / 2**20:.1f} MiB",
            old.job_dir.uri,
        )
        for old in found
    ]
    say_table(("WRITTEN", "OBJECTS", "SIZE", "JOB DIR"), rows)


def _models(storage: Storage, bucket: str) -> list[str]:
    names = storage.list_dirs(bucket)
    return [name for name in names if layout.NAME.match(name) and name not in layout.RESERVED_NAMES]


def old_jobs(storage: Storage, bucket: str, model: str, before: float) -> Iterator[OldJob]:
    """The job dirs of a model in which nothing was written since ``before``, in seconds since the epoch.

    A task that is cleared several times uses the dirs ``D``, ``D_2``, ``D_3``. Only the last of them is returned: a
    submission tries them in order, and would use a gap.
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
    """The job dir with its objects.

    If an earlier deletion was interrupted after it had deleted the claim, the objects are those in its journal.
    """
    journal = next((stat for stat in objects if stat.uri == layout.join(job_dir.uri, _JOURNAL)), None)
    others = [stat for stat in objects if stat is not journal]
    if journal is not None and not any(stat.uri == job_dir.claim for stat in others):
        listed = _read_journal(storage, journal)
        others = [stat for stat in others if (stat.uri, stat.generation) in listed]
    return OldJob(job_dir, others, journal)


def _read_journal(storage: Storage, journal: ObjectStat) -> set[tuple[str, int]]:
    """The URI and generation of each object in a journal; empty if the journal is invalid."""
    try:
        return {(str(uri), int(generation)) for uri, generation in json.loads(storage.read(journal.uri))["deleting"]}
    except (ValueError, TypeError, KeyError):
        return set()


def _is_followed(name: str, names: Container[str]) -> bool:
    """Whether ``D_2`` exists for ``D``, or ``D_3`` for ``D_2``."""
    first, _, number = name.rpartition("_")
    return f"{name}_2" in names or (number.isdecimal() and f"{first}_{int(number) + 1}" in names)


class References:
    """The job dirs of all past and present champions, and of jobs that later runs may reuse.

    All models of the bucket are read, because a job may be published under another model's name. Each entry is read
    only once, because a changed entry has another generation.
    """

    def __init__(self, storage: Storage, bucket: str) -> None:
        self._storage, self._bucket = storage, bucket
        self._known: dict[tuple[str, int], str] = {}  # entry and generation → job dir

    def read(self) -> set[str]:
        """The URIs of the job dirs that are referred to now.

        :raises PublishError: an entry of a history cannot be read, so it is not known which dirs must be kept.
        """
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(self._of_model, _models(self._storage, self._bucket)))
        return {uri.rstrip("/") for uris in found for uri in uris}

    def _of_model(self, model: str) -> list[str]:
        storage, bucket = self._storage, self._bucket
        champion = current(storage, bucket, model)
        kept = [
            self._job_dir(stat, lambda data, uri: Champion.from_bytes(data, uri).job_dir)
            for stat in storage.ls(layout.champion_entries(bucket, model))
        ]
        if champion is not None:
            kept.append(champion.job_dir)
        for stat in storage.ls(layout.validated_entries(bucket, model)):
            with suppress(MlengineError):  # a damaged entry is never reused
                kept.append(self._job_dir(stat, lambda data, _: cache.Entry.from_bytes(data).job_dir))
        return kept

    def _job_dir(self, stat: ObjectStat, parse: Callable[[bytes, str], str]) -> str:
        key = (stat.uri, stat.generation)
        if key not in self._known:
            self._known[key] = parse(self._storage.read(stat.uri), stat.uri)
        return self._known[key]


def _is_or_contains(uri: str, job_dirs: Iterable[str]) -> bool:
    """Whether one of the job dirs is ``uri`` or is inside it."""
    return any(one == uri or one.startswith(f"{uri}/") for one in job_dirs)


def may_go(storage: Storage, backend: Callable[[str], TrainingBackend], old: OldJob) -> bool:
    """Whether a job dir may be deleted: the job was rejected, or its backend says that it failed."""
    if not old.claimed:
        return True  # the job was never submitted, or its deletion was interrupted
    try:
        record = JobRecord.from_bytes(storage.read(old.job_dir.claim))
        why = _why_not_own(old, record)
        if not why and any(stat.uri == old.job_dir.report for stat in old.objects):
            return load_report(storage, old.job_dir).verdict.decision is Decision.REJECTED
        why = why or _not_failed(backend(record.backend), record, old.job_dir)
    except MlengineError as error:
        if error.retryable:
            raise
        why = error.message
    if why:
        note(f"kept {old.job_dir.uri}: {why}")
    return not why


def _why_not_own(old: OldJob, record: JobRecord) -> str:
    """Why the dir contains more than the job's own objects; empty if it does not."""
    if not record.found_empty:
        return "it was not empty when the job started"
    other = next((stat.uri for stat in old.objects if _OTHER_JOB.search(stat.uri.removeprefix(old.job_dir.uri))), None)
    return f"it contains another job: {other}" if other else ""


def _not_failed(backend: TrainingBackend, record: JobRecord, job_dir: JobDir) -> str:
    """Why the job does not count as failed; empty if it does."""
    handle = record.handle(job_dir.uri)
    if handle is None:
        return "it is claimed, but no submission is recorded"
    if elsewhere(backend, handle):
        return "its job belongs to another host"
    state = backend.describe([handle])[0].state
    return "" if state.terminal and state is not JobState.SUCCEEDED else f"its job is {state.value}"


def _remove(storage: Storage, references: References, old: OldJob) -> bool:
    """Delete a job dir unless its job was published, or the dir was written to, since the listing."""
    written = {(stat.uri, stat.generation) for stat in old.objects}
    if old.journal is not None:
        written.add((old.journal.uri, old.journal.generation))
    now = {(stat.uri, stat.generation) for stat in storage.ls(old.job_dir.uri + "/")}
    if old.claimed and now != written:
        note(f"kept {old.job_dir.uri}: it has been written to since it was listed")
        return False
    if _is_or_contains(old.job_dir.uri, references.read()):
        note(f"kept {old.job_dir.uri}: it has been published since it was listed")
        return False
    return remove(storage, old)


def remove(storage: Storage, old: OldJob) -> bool:
    """Delete the objects that were listed: write a journal, delete the claim, then the rest.

    The claim is deleted first so that no submission resumes a job that is partly deleted. If the deletion is
    interrupted, the next ``prune`` completes it from the journal.

    :returns: ``False`` if the dir was claimed again meanwhile; then nothing is deleted.
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
        note(f"kept {old.job_dir.uri}: it is in use again")
        return False

    def delete(stat: ObjectStat) -> None:
        with suppress(StorageConflictError):
            storage.delete(stat.uri, stat.generation)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(delete, (stat for stat in old.objects if stat not in claims)))
    if claims or old.journal is not None:
        storage.delete(journal)
    return True
