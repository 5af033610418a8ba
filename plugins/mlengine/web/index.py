"""The index: every job of the bucket in memory, so that a view costs no call to the bucket, however many there are.

A look at the bucket takes one folder listing a model, and reads the dirs of new and living jobs only. Jobs that have
settled are kept as rows in ``<model>/index/jobs.json``: what a restarted server reads instead of a thousand job dirs.
That object is a copy of what the job dirs say: it can be deleted at any time, and is made anew.

Looks are taken by one thread at a time, at most every :data:`PAUSE` seconds, and only while somebody looks at the page;
who asks meanwhile is given what is known, or waits a moment if that is old. A few settled rows are read anew with each
look, so that one which changed after all (a model that was judged again) is put right. Who opens a job reads the truth
at once.
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

FORMAT = 1
PAUSE = 4.0  # seconds between two looks
KEEP_PAUSE = 60.0  # seconds between two writings of a model's kept rows
AGAIN = 5  # settled rows that each look reads anew
THREADS = 8
PART = 100  # jobs that are read before a first view may be shown
OLD = 15.0  # seconds after a look: nobody has had the page open since
_FIRST_LOOK = 20.0  # seconds that a first view waits for the first look
_NEXT_LOOK = 3.0  # that a view waits for the next look, if what is known is old

Backends = Callable[[str], TrainingBackend | None]
People = Callable[[set[tuple[str, str]]], Mapping[tuple[str, str], str]]


@dataclass(frozen=True)
class View:
    """What is known: the newest job first.

    :param at: when that was so, in seconds since the epoch; ``None`` before the first look has ended: then there may
        be more.
    :param error: why the last look failed, if it did.
    """

    rows: tuple[Row, ...] = ()
    at: float | None = None
    error: str = ""


@dataclass
class _Kept:
    """What a model's object in the bucket holds."""

    generation: int = 0
    rows: int = 0
    written: float = float("-inf")


class Index:
    """Of one bucket.

    :param backends: the backend of a name; ``None`` if it cannot be made here.
    :param people: who triggered the runs ``(dag_id, run_id)``, of those it knows.
    """

    def __init__(self, storage: Storage, bucket: str, backends: Backends, people: People | None = None) -> None:
        self._storage = storage
        self._bucket = layout.bucket_uri(bucket)
        self._backends = backends
        self._people = people
        self._rows: dict[str, Row] = {}
        self._kept: dict[str, _Kept] = {}
        self._view = View()
        self._looked = float("-inf")
        self._looking = threading.Lock()
        self._first = threading.Event()
        self._fresh = threading.Event()

    def view(self) -> View:
        """What is known now; a look is begun if the last was a while ago.

        Only a first view waits for its end, and one after a time in which nobody asked, for a moment.
        """
        age = time.monotonic() - self._looked
        if age >= PAUSE and self._looking.acquire(blocking=False):
            self._fresh.clear()
            # A thread of its own: the request that happens to come first is not the one that pays.
            threading.Thread(target=self._look_once, name="mlengine-index", daemon=True).start()
        if self._view.at is None and not self._view.error:
            self._first.wait(_FIRST_LOOK)
        elif age >= OLD:
            self._fresh.wait(_NEXT_LOOK)
        return self._view

    def refresh(self) -> View:
        """Look now, and wait for it."""
        self._looking.acquire()
        self._look_once()
        return self._view

    def read(self, job_dir: JobDir) -> tuple[Claimed, Row] | None:
        """The truth about one job, which is also what the index knows from then on."""
        claim = read_claim(self._storage, job_dir)
        if claim is None:
            return None
        row = self._fill_in([claim])[0]
        known = self._rows.get(job_dir.uri)
        if known is not None:
            self._rows[job_dir.uri] = replace(row, by=row.by or known.by)
        return claim, row

    def _look_once(self) -> None:
        try:
            self._look()
            self._view = View(_ordered(self._rows.values()), time.time())
        except MlengineError as error:
            self._view = replace(self._view, error=error.message)
            log.warning("the bucket cannot be looked at: %s", error.message)
        except Exception as error:
            self._view = replace(self._view, error=f"{type(error).__name__} in the index; see the API server's log")
            log.exception("the index failed")
        finally:
            self._looked = time.monotonic()
            self._first.set()
            self._fresh.set()
            self._looking.release()

    def _look(self) -> None:
        names = self._storage.list_dirs(self._bucket)
        models = [name for name in names if name not in layout.RESERVED_NAMES and layout.NAME.match(name)]
        with ThreadPoolExecutor(THREADS, thread_name_prefix="mlengine-index") as pool:
            for model in models:
                if model not in self._kept:
                    self._load(model)
            listings = pool.map(lambda model: self._storage.list_dirs(layout.model_prefix(self._bucket, model)), models)
            dirs = {
                layout.join(self._bucket, model, job_id)
                for model, job_ids in zip(models, listings, strict=True)
                for job_id in job_ids
                if job_id not in layout.NO_JOBS
            }
            for gone in self._rows.keys() - dirs:
                self._rows.pop(gone, None)
            due = self._due(dirs)
            for begin in range(0, len(due), PART):
                self._read_part(due[begin : begin + PART], pool)
                if self._view.at is None and begin + PART < len(due):
                    # A server that knows nothing yet shows what it has, instead of nothing.
                    self._view = replace(self._view, rows=_ordered(self._rows.values()))
                    self._first.set()
        for model in models:
            self._keep(model)

    def _read_part(self, uris: Sequence[str], pool: ThreadPoolExecutor) -> None:
        claims = pool.map(lambda uri: read_claim(self._storage, JobDir(uri)), uris)
        found = [claim for claim in claims if claim is not None]
        for claim, row in zip(found, self._fill_in(found, pool), strict=True):
            self._rows[claim.job_dir.uri] = row

    def _due(self, dirs: set[str]) -> list[str]:
        """New dirs, jobs that are not settled, and a few that are, in turns."""
        settled = [uri for uri in dirs if uri in self._rows and self._rows[uri].settled]
        again = sorted(settled, key=lambda uri: self._rows[uri].seen)[:AGAIN]
        return sorted(dirs - set(settled), reverse=True) + again  # names have dates: the newest first, more or less

    def _fill_in(self, claims: Sequence[Claimed], pool: ThreadPoolExecutor | None = None) -> list[Row]:
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
        known = self._who({(row.dag_id, row.run_id) for row in rows if row.run_id})
        return [replace(row, by=known.get((row.dag_id, row.run_id), row.by)) for row in rows]

    def _who(self, runs: set[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
        return self._people(runs) if self._people and runs else {}

    def _load(self, model: str) -> None:
        """The rows that an earlier server kept. What cannot be read is as good as nothing."""
        kept = self._kept[model] = _Kept()
        try:
            data, kept.generation = self._storage.read_with_generation(layout.jobs_index(self._bucket, model))
            raw = json.loads(data)
            rows = [Row.from_json(item) for item in raw["rows"]] if raw["format"] == FORMAT else []
        except ObjectMissingError:
            return
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("the index of %s cannot be read; it is made anew", model)
            return
        kept.rows = len(rows)
        self._rows |= {layout.join(self._bucket, model, row.job_id): row for row in rows if row.settled}

    def _keep(self, model: str) -> None:
        """Write the settled rows, if there are more or fewer than were written. Another server may be first."""
        kept = self._kept[model]
        rows = [row for row in self._rows.values() if row.model == model and row.settled]
        if len(rows) == kept.rows or time.monotonic() - kept.written < KEEP_PAUSE:
            return
        uri = layout.jobs_index(self._bucket, model)
        data = json.dumps({"format": FORMAT, "rows": [row.to_json() for row in rows]}).encode()
        kept.written = time.monotonic()
        try:
            if kept.generation:
                kept.generation = self._storage.replace(uri, data, kept.generation)
            else:
                kept.generation = self._storage.create(uri, data)
            kept.rows = len(rows)
        except StorageConflictError:
            stat = self._storage.stat(uri)
            kept.generation = stat.generation if stat else 0
        except MlengineError as error:
            log.info("the index of %s is not kept: %s", model, error.message)


def _ordered(rows: object) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda row: (row.claimed or 0.0, row.job_id), reverse=True))  # type: ignore[call-overload]
