"""The rows of all jobs of a bucket, from the job index and from the job directories that the index does not cover.

A refresh lists one folder per model, loads the objects of the index that have changed, and reads the directories of
jobs that have no final row. A check, at longer intervals, compares the generations in the rows with those of the
objects, and reads the jobs whose objects have changed. Such rows are out of date because a process died before it
wrote to the index, or ran a version without the index. New rows are written to the index, so that the next server
need not read those jobs.
"""

from __future__ import annotations

import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from mlengine.backends import TrainingBackend
from mlengine.core import layout
from mlengine.core.errors import MlengineError, StorageError
from mlengine.core.job import JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.plural import number_of
from mlengine.job_index import shards
from mlengine.job_index.reading import INVALID, Claimed, CurrentJob, damaged, describe, make_row, read_claim
from mlengine.job_index.rows import Row, check
from mlengine.job_index.shards import Key, Shard
from mlengine.storage.client import ObjectStat, Storage

log = logging.getLogger(__name__)

CHECK_INTERVAL = 600.0  # seconds between two comparisons of the generations
WRITE_INTERVAL = 60.0  # seconds between two writes to the index, unless many jobs were read
MANY = 20
BATCH = 100  # maximum number of jobs that are read together
_SKEW = 60.0  # maximum clock difference in seconds
_FORGET_AFTER = 3600.0  # minimum age, in seconds, of a row that is deleted from the index because its directory is gone
_USERS_PAUSE = 60.0  # seconds between a failed query for users and the next query
_UNCLAIMED_PAUSE = 600.0  # maximum number of seconds between two reads of a directory without a claim

Backends = Callable[[str], TrainingBackend | None]
FindUsers = Callable[[set[tuple[str, str]]], Mapping[tuple[str, str], str] | None]


class BucketRows:
    """The rows of one bucket, by model and job id.

    :param backends: returns the backend with the given name, or ``None`` if it is not configured.
    :param find_users: the users who triggered the given runs ``(dag_id, run_id)``; ``None`` if the query failed.
    """

    def __init__(self, storage: Storage, bucket: str, backends: Backends, find_users: FindUsers | None = None) -> None:
        self.rows: dict[Key, Row] = {}
        self._storage = storage
        self._bucket = layout.bucket_uri(bucket)
        self._backends = backends
        self._find_users = find_users
        self._shards: list[Shard] | None = None
        self._dirs: set[Key] = set()
        self._listed = 0.0
        self._unclaimed: dict[Key, tuple[float, float]] = {}  # time of the first read, and of the next
        # Generations of deleted objects. Generations only increase, so no valid row has one of these or a lower one.
        self._deleted_claims: dict[Key, int] = {}
        self._deleted_reports: dict[Key, int] = {}
        # Generations that a row of the index has, but the job's objects do not: the row was not read from the objects.
        self._forged: dict[Key, tuple[int, int]] = {}
        self._queried_runs: set[tuple[str, str]] = set()  # runs whose users were queried
        self._checked = self._written = self._users_failed = float("-inf")
        self._read_since = 0  # number of jobs that were read since the last write to the index

    def refresh(self, pool: Executor, progress: Callable[[], None] = lambda: None) -> None:
        """List the bucket, and read the jobs that may have changed.

        :param progress: called after each batch of jobs except the last one.
        """
        listed = time.time()
        names = pool.submit(self._storage.list_dirs, self._bucket)
        loading = self._load_changed(pool)
        models = [name for name in names.result() if name not in layout.RESERVED_NAMES and layout.NAME.match(name)]
        listings = pool.map(lambda model: self._storage.list_dirs(layout.model_prefix(self._bucket, model)), models)
        loading()
        self._dirs = {
            (model, job_id)
            for model, job_ids in zip(models, listings, strict=True)
            for job_id in job_ids
            if job_id not in layout.NO_JOBS
        }
        self._listed = listed
        known: dict[Key, Any]
        for known in (self.rows, self._deleted_claims, self._deleted_reports, self._forged):
            for gone in known.keys() - self._dirs:
                del known[gone]
        self._read(self._due(), pool, progress)

    def check(self, pool: Executor) -> None:
        """Compare the rows with the generations of the objects, every :data:`CHECK_INTERVAL` seconds."""
        if time.monotonic() - self._checked < CHECK_INTERVAL:
            return
        began = time.time()
        found = self._generations()
        rows = list(self.rows.items())
        stale = {key: row for key, row in rows if _is_stale(row, *found.get(key, (None, None)), began)}
        if stale:
            log.info("Refreshing outdated entries of the job index: %s", number_of(len(stale), "row"))
        self._read(sorted(stale, key=_age, reverse=True), pool)
        for key, row in stale.items():
            if (now := self.rows.get(key)) and now.generations < row.generations:
                self._forged[key] = row.generations
        self._checked = time.monotonic()

    def save(self, pool: Executor) -> None:
        """Write new final rows to the index, and delete the rows of deleted jobs.

        The index is written every :data:`WRITE_INTERVAL` seconds. If :data:`MANY` jobs were read, it is written
        immediately, because the process may end soon.
        """
        if time.monotonic() - self._written >= WRITE_INTERVAL or self._read_since >= MANY:
            self._save(pool)

    def _save(self, pool: Executor) -> None:
        if self._shards is None:
            return
        changes = self._unsaved(self._shards)
        known = [self._shards[number].rows for number in changes]
        for number, shard in zip(changes, pool.map(self._save_shard, changes, changes.values(), known), strict=True):
            if shard is not None:
                self._shards[number] = shard
        self._written, self._read_since = time.monotonic(), 0

    def read(self, job_dir: JobDir) -> CurrentJob | None:
        """Read one job now, and update its row. Return ``None`` if there is no such job."""
        claim = read_claim(self._storage, job_dir)
        if claim is None:
            return None
        statuses = self._describe([claim])
        row = self._make_rows([claim], statuses)[0]
        key = (row.model, row.job_id)
        known = self.rows.get(key)
        if known is not None:
            row = row._replace(by=row.by or known.by)
            self.rows[key] = row
        return CurrentJob(claim, row, statuses.get(job_dir.uri))

    def add_users(self, keys: Iterable[Key]) -> None:
        """Look up who triggered the runs of these rows. Each run is queried at most once."""
        missing = [row for key in keys if (row := self.rows.get(key)) is not None and row.run_id and not row.by]
        runs = {(row.dag_id, row.run_id) for row in missing} - self._queried_runs
        users = self._query_users(runs)
        if users is None:
            return
        self._queried_runs |= runs
        for row in missing:
            if user := users.get((row.dag_id, row.run_id)):
                self.rows[row.model, row.job_id] = row._replace(by=user)

    def _load_changed(self, pool: Executor) -> Callable[[], None]:
        """Start to load the objects of the index that have changed.

        :returns: a function that waits for the objects and merges their rows.
        """
        known = self._shards or [Shard() for _ in range(shards.SHARDS)]
        stats = {stat.uri: stat.generation for stat in self._storage.ls(layout.job_index(self._bucket))}
        generations = [stats.get(layout.job_index_shard(self._bucket, number), 0) for number in range(shards.SHARDS)]
        changed = [number for number, shard in enumerate(known) if shard.generation != generations[number]]
        loads = pool.map(lambda number: self._load_shard(number) if generations[number] else Shard(), changed)

        def finish() -> None:
            for number, shard in zip(changed, loads, strict=True):
                known[number] = shard
                self._merge(shard.rows.values())
            self._shards = known

        return finish

    def _load_shard(self, number: int) -> Shard:
        try:
            return shards.load(self._storage, self._bucket, number)
        except MlengineError as error:
            if error.retryable:
                raise
            log.warning("Ignoring an unreadable part of the job index: %s", error.message)
            return Shard(newer=True)

    def _merge(self, rows: Iterable[Row]) -> None:
        for row in rows:
            key = (row.model, row.job_id)
            if not self._is_outdated(row):
                self.rows[key] = shards.merged(self.rows.get(key), row)

    def _is_outdated(self, row: Row) -> bool:
        """Whether the row was read from an object that has since been deleted, or that never existed."""
        key = (row.model, row.job_id)
        if row.generations == self._forged.get(key):
            return True
        if row.claim_generation <= self._deleted_claims.get(key, -1):
            return True
        return 0 < row.report_generation <= self._deleted_reports.get(key, 0)

    def _due(self) -> list[Key]:
        """The directories to read: those of jobs without a final row."""
        now = time.time()
        self._unclaimed = {key: when for key, when in self._unclaimed.items() if key in self._dirs}
        return sorted(
            (
                key
                for key in self._dirs
                if not ((row := self.rows.get(key)) and row.final(now)) and self._unclaimed.get(key, (0, 0))[1] <= now
            ),
            key=_age,
            reverse=True,
        )

    def _read(self, keys: Sequence[Key], pool: Executor, progress: Callable[[], None] = lambda: None) -> None:
        saved = time.monotonic()
        for begin in range(0, len(keys), BATCH):
            self._read_batch(keys[begin : begin + BATCH], pool)
            if begin + BATCH < len(keys):
                progress()
            if time.monotonic() - saved >= WRITE_INTERVAL:  # reading all jobs of a large bucket takes minutes
                self._save(pool)
                saved = time.monotonic()

    def _read_batch(self, keys: Sequence[Key], pool: Executor) -> None:
        claims = list(pool.map(lambda key: read_claim(self._storage, JobDir.of(self._bucket, *key)), keys))
        now = time.time()
        for key, claim in zip(keys, claims, strict=True):
            if claim is None:
                if (gone := self.rows.pop(key, None)) is not None:
                    self._deleted_claims[key] = gone.claim_generation
                first = self._unclaimed.get(key, (now, now))[0]
                self._unclaimed[key] = (first, now + min((now - first) / 2, _UNCLAIMED_PAUSE))
            else:
                self._unclaimed.pop(key, None)
        found = [claim for claim in claims if claim is not None]
        for row in self._make_rows(found, self._describe(found), pool):
            key = (row.model, row.job_id)
            known = self.rows.get(key)
            if row.report_generation:
                self._deleted_reports.pop(key, None)
            elif known is not None and known.report_generation:
                self._deleted_reports[key] = known.report_generation
            self.rows[key] = row._replace(by=row.by or (known.by if known else ""))
            # Only final rows are written to the index. A running job is read again at every refresh.
            self._read_since += row.final(now) and (known is None or _content(known) != _content(row))

    def _describe(self, claims: Sequence[Claimed]) -> dict[str, JobStatus]:
        """The status of each job that its backend knows, by job directory."""
        statuses: dict[str, JobStatus] = {}
        for name in {claim.record.backend for claim in claims}:
            backend = self._backends(name)
            if backend is not None:
                statuses |= describe(backend, [claim for claim in claims if claim.record.backend == name])
        return statuses

    def _make_rows(
        self, claims: Sequence[Claimed], statuses: Mapping[str, JobStatus], pool: Executor | None = None
    ) -> list[Row]:
        def one(claim: Claimed) -> Row:
            status = statuses.get(claim.job_dir.uri)
            try:
                row = make_row(self._storage, claim, status, self._backends(claim.record.backend))
                check(row)
            except INVALID as error:
                return damaged(claim, repr(error))
            except MlengineError as error:
                if error.retryable or isinstance(error, StorageError):
                    raise
                return damaged(claim, error.message)
            return row

        rows = list((pool.map if pool else map)(one, claims))
        users = self._query_users({(row.dag_id, row.run_id) for row in rows if row.run_id}) or {}
        return [row._replace(by=users.get((row.dag_id, row.run_id), row.by)) for row in rows]

    def _query_users(self, runs: set[tuple[str, str]]) -> Mapping[tuple[str, str], str] | None:
        """Query the users who triggered these runs.

        :returns: the users; ``None`` if the query fails, or has failed within the last :data:`_USERS_PAUSE` seconds.
        """
        if self._find_users is None or not runs:
            return {}
        if time.monotonic() - self._users_failed < _USERS_PAUSE:
            return None
        users = self._find_users(runs)
        if users is None:
            self._users_failed = time.monotonic()
        return users

    def _generations(self) -> dict[Key, tuple[ObjectStat | None, ObjectStat | None]]:
        """The claim and the report of each job, as listed in the bucket."""
        found: dict[Key, tuple[ObjectStat | None, ObjectStat | None]] = {}
        for stat in self._storage.ls(f"{self._bucket}/", "*/*/{job,report}.json"):
            model, _, rest = stat.uri[len(self._bucket) + 1 :].partition("/")
            job_id, _, name = rest.partition("/")
            claim, report = found.get((model, job_id), (None, None))
            if name == "job.json":
                found[model, job_id] = (stat, report)
            elif name == "report.json":
                found[model, job_id] = (claim, stat)
        return found

    def _unsaved(self, known: Sequence[Shard]) -> dict[int, dict[Key, Row | None]]:
        """The changes to write to the index, by the number of the object. ``None`` deletes a row."""
        now = time.time()
        changes: dict[int, dict[Key, Row | None]] = defaultdict(dict)
        for key, row in list(self.rows.items()):
            if row.final(now):
                number = shards.number_of(*key)
                stored = known[number].rows.get(key)
                if stored is None or _content(stored) != _content(row):
                    changes[number][key] = row
        for number, shard in enumerate(known):
            for key, row in shard.rows.items():
                deleted = key not in self._dirs and row.seen < self._listed - _FORGET_AFTER
                if deleted or (key not in self.rows and self._is_outdated(row)):
                    changes[number][key] = None
        return {number: rows for number, rows in changes.items() if not known[number].newer}

    def _save_shard(self, number: int, rows: Mapping[Key, Row | None], known: Mapping[Key, Row]) -> Shard | None:
        def wanted(key: Key, row: Row | None, present: Row | None) -> Row | None:
            if row is None:
                return None if present == known.get(key) else present  # keep a row that was rewritten
            return shards.merged(None if present is None or self._is_outdated(present) else present, row)

        def change(present: Mapping[Key, Row]) -> Mapping[Key, Row | None]:
            result = {key: wanted(key, row, present.get(key)) for key, row in rows.items()}
            return {key: row for key, row in result.items() if present.get(key) != row}

        try:
            return shards.update(self._storage, self._bucket, number, change)
        except MlengineError as error:
            log.info("Could not write the job index: %s", error.message)
            return None


def _is_stale(row: Row, claim: ObjectStat | None, report: ObjectStat | None, listed: float) -> bool:
    """Whether the row was read from objects other than the listed ones.

    :param listed: the time at which the listing began, in seconds since the epoch.
    """
    if claim is None or (report is None and row.report_generation):
        return row.seen < listed - _SKEW  # an object was deleted
    return row.generations != (claim.generation, report.generation if report else 0)


def _age(key: Key) -> tuple[str, str]:
    """A sort key that orders the jobs of all models roughly by age.

    A job id consists of the model's name, a date or version, and a digest.
    """
    model, job_id = key
    return job_id.removeprefix(re.sub(r"[^0-9A-Za-z]+", "_", model)), model


def _content(row: Row) -> tuple[object, ...]:
    """The fields of a row. The row is written again only if one of them has changed."""
    return row.claim_generation, row.report_generation, row.state, row.by
