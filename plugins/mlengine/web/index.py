"""The index: the rows of all jobs of the bucket, in memory, so that a view needs no call to the bucket.

A refresh lists one folder per model, and reads the directories of new and running jobs. Rows that are final are cached
in ``<model>/index/jobs.json``, so a restarted server reads these objects instead of all job directories. They can be
deleted at any time; the next refresh writes them again.

One thread refreshes the index, at most every :data:`REFRESH_INTERVAL` seconds, and only while the page is open.
Requests get the current rows without waiting, except the first one, and requests after a pause. Each refresh also reads
a few final rows again, to find jobs that have changed after all, for example by a second validation. Opening a job
always reads the job itself.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from mlengine.backends import TrainingBackend
from mlengine.core import layout
from mlengine.core.errors import MlengineError, ObjectMissingError, StorageConflictError
from mlengine.core.job import JobStatus
from mlengine.core.layout import JobDir
from mlengine.storage.client import Storage
from mlengine.web.rows import Claimed, Row, damaged, describe, make_row, read_claim

log = logging.getLogger(__name__)

FORMAT = 3
REFRESH_INTERVAL = 4.0  # seconds
WRITE_INTERVAL = 60.0  # seconds between two writes of a model's cached rows
REREAD = 5  # final rows that each refresh reads again
THREADS = 8
BATCH = 100  # jobs to read before the first view may be shown
STALE = 15.0  # seconds after a refresh; the page has not been open since
_FIRST_WAIT = 20.0  # seconds that the first view waits for the first refresh
_STALE_WAIT = 3.0  # seconds that a view waits for a refresh if the rows are stale

Backends = Callable[[str], TrainingBackend | None]
People = Callable[[set[tuple[str, str]]], Mapping[tuple[str, str], str]]


@dataclass(frozen=True)
class View:
    """The rows, newest job first.

    :param at: when they were read, in seconds since the epoch; ``None`` before the first refresh has ended, when rows
        may be missing.
    :param error: why the last refresh failed; empty if it succeeded.
    """

    rows: tuple[Row, ...] = ()
    at: float | None = None
    error: str = ""


@dataclass
class _Cached:
    """The state of a model's ``jobs.json``: how many rows it has, and when this server wrote it."""

    generation: int = 0
    rows: int = 0
    written: float = float("-inf")


class Index:
    """The index of one bucket.

    :param backends: returns the backend of a name, or ``None`` if it is not configured.
    :param people: returns the users who triggered the given runs ``(dag_id, run_id)``.
    """

    def __init__(self, storage: Storage, bucket: str, backends: Backends, people: People | None = None) -> None:
        self._storage = storage
        self._bucket = layout.bucket_uri(bucket)
        self._backends = backends
        self._people = people
        self._rows: dict[str, Row] = {}
        self._cached: dict[str, _Cached] = {}
        self._view = View()
        self._refreshed = float("-inf")
        self._refreshing = threading.Lock()
        self._first = threading.Event()
        self._fresh = threading.Event()

    def view(self) -> View:
        """The current rows. Starts a refresh if the last one is older than :data:`REFRESH_INTERVAL`.

        Waits for the refresh only if there are no rows yet, or if they are stale.
        """
        age = time.monotonic() - self._refreshed
        if age >= REFRESH_INTERVAL and self._refreshing.acquire(blocking=False):
            self._fresh.clear()
            # In a separate thread, so that the request does not wait for it.
            threading.Thread(target=self._refresh, name="mlengine-index", daemon=True).start()
        if self._view.at is None and not self._view.error:
            self._first.wait(_FIRST_WAIT)
        elif age >= STALE:
            self._fresh.wait(_STALE_WAIT)
        return self._view

    def refresh(self) -> View:
        """Refresh now, and wait until it is done."""
        self._refreshing.acquire()
        self._refresh()
        return self._view

    def read(self, job_dir: JobDir) -> tuple[Claimed, Row] | None:
        """Read one job now, and update its row in the index. ``None`` if there is no such job."""
        claim = read_claim(self._storage, job_dir)
        if claim is None:
            return None
        row = self._make_rows([claim])[0]
        known = self._rows.get(job_dir.uri)
        if known is not None:
            self._rows[job_dir.uri] = replace(row, by=row.by or known.by)
        return claim, row

    def _refresh(self) -> None:
        try:
            self._read_bucket()
            self._view = View(_ordered(self._rows.values()), time.time())
        except MlengineError as error:
            self._view = replace(self._view, error=error.message)
            log.warning("Could not refresh the index: %s", error.message)
        except Exception as error:
            self._view = replace(self._view, error=f"{type(error).__name__}; see the log of the API server")
            log.exception("Refreshing the index failed")
        finally:
            self._refreshed = time.monotonic()
            self._first.set()
            self._fresh.set()
            self._refreshing.release()

    def _read_bucket(self) -> None:
        names = self._storage.list_dirs(self._bucket)
        models = [name for name in names if name not in layout.RESERVED_NAMES and layout.NAME.match(name)]
        with ThreadPoolExecutor(THREADS, thread_name_prefix="mlengine-index") as pool:
            for model in models:
                if model not in self._cached:
                    self._load_cache(model)
            listings = pool.map(lambda model: self._storage.list_dirs(layout.model_prefix(self._bucket, model)), models)
            dirs = {
                layout.join(self._bucket, model, job_id)
                for model, job_ids in zip(models, listings, strict=True)
                for job_id in job_ids
                if job_id not in layout.NO_JOBS
            }
            for deleted in self._rows.keys() - dirs:
                self._rows.pop(deleted, None)
            due = self._due(dirs)
            for begin in range(0, len(due), BATCH):
                self._read_batch(due[begin : begin + BATCH], pool)
                if self._view.at is None and begin + BATCH < len(due):
                    # The first view shows the rows that have been read so far.
                    self._view = replace(self._view, rows=_ordered(self._rows.values()))
                    self._first.set()
        for model in models:
            self._write_cache(model)

    def _read_batch(self, uris: Sequence[str], pool: ThreadPoolExecutor) -> None:
        claims = pool.map(lambda uri: read_claim(self._storage, JobDir(uri)), uris)
        found = [claim for claim in claims if claim is not None]
        for claim, row in zip(found, self._make_rows(found, pool), strict=True):
            self._rows[claim.job_dir.uri] = row

    def _due(self, dirs: set[str]) -> list[str]:
        """The directories to read: new jobs, jobs that are not final, and the final ones read longest ago."""
        final = [uri for uri in dirs if uri in self._rows and self._rows[uri].final]
        again = sorted(final, key=lambda uri: self._rows[uri].seen)[:REREAD]
        return sorted(dirs - set(final), reverse=True) + again  # ids contain dates: roughly newest first

    def _make_rows(self, claims: Sequence[Claimed], pool: ThreadPoolExecutor | None = None) -> list[Row]:
        backends = {name: self._backends(name) for name in {claim.record.backend for claim in claims}}
        statuses: dict[str, JobStatus] = {}
        for name, backend in backends.items():
            if backend is not None:
                statuses |= describe(backend, [claim for claim in claims if claim.record.backend == name])

        def one(claim: Claimed) -> Row:
            backend = backends[claim.record.backend]
            try:
                return make_row(self._storage, claim, statuses.get(claim.job_dir.uri), backend)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                return damaged(claim, repr(error))

        rows = list((pool.map if pool else map)(one, claims))
        users = self._triggered_by({(row.dag_id, row.run_id) for row in rows if row.run_id})
        return [replace(row, by=users.get((row.dag_id, row.run_id), row.by)) for row in rows]

    def _triggered_by(self, runs: set[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
        return self._people(runs) if self._people and runs else {}

    def _load_cache(self, model: str) -> None:
        """Load the rows that an earlier server cached. An invalid object is ignored."""
        cached = self._cached[model] = _Cached()
        try:
            data, cached.generation = self._storage.read_with_generation(layout.jobs_index(self._bucket, model))
            raw = json.loads(data)
            rows = [Row.from_json(item) for item in raw["rows"]] if raw["format"] == FORMAT else []
        except ObjectMissingError:
            return
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("Ignoring the invalid cache of the index of %s", model)
            return
        cached.rows = len(rows)
        self._rows |= {layout.join(self._bucket, model, row.job_id): row for row in rows if row.final}

    def _write_cache(self, model: str) -> None:
        """Write the final rows if their number has changed. Another server may write the same object."""
        cached = self._cached[model]
        rows = [row for row in self._rows.values() if row.model == model and row.final]
        if len(rows) == cached.rows or time.monotonic() - cached.written < WRITE_INTERVAL:
            return
        uri = layout.jobs_index(self._bucket, model)
        data = json.dumps({"format": FORMAT, "rows": [row.to_json() for row in rows]}).encode()
        cached.written = time.monotonic()
        try:
            if cached.generation:
                cached.generation = self._storage.replace(uri, data, cached.generation)
            else:
                cached.generation = self._storage.create(uri, data)
            cached.rows = len(rows)
        except StorageConflictError:
            stat = self._storage.stat(uri)
            cached.generation = stat.generation if stat else 0
        except MlengineError as error:
            log.info("Could not write the cache of the index of %s: %s", model, error.message)


def _ordered(rows: object) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda row: (row.claimed or 0.0, row.job_id), reverse=True))  # type: ignore[call-overload]
