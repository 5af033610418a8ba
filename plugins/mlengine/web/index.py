"""The list of jobs in the API server's memory, so that showing the list needs no request to the bucket.

One thread refreshes the rows (:mod:`mlengine.job_index.bucket_rows`), at most every :data:`REFRESH_INTERVAL` seconds,
and only while the page is open. Requests get the current rows without waiting, except for the first request and for
requests after a pause. Opening a job always reads the job itself.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from mlengine.core.errors import MlengineError
from mlengine.core.layout import JobDir
from mlengine.job_index.bucket_rows import Backends, BucketRows, FindUsers
from mlengine.job_index.reading import CurrentJob
from mlengine.job_index.rows import Row
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

REFRESH_INTERVAL = 4.0  # seconds
THREADS = 8
STALE = 15.0  # age of the rows in seconds; older rows mean that the page was not open
_FIRST_WAIT = 20.0  # seconds that the first view waits for the first refresh
_STALE_WAIT = 3.0  # seconds that a view waits for a refresh if the rows are stale
_FIRST_PAGE = 200  # number of newest rows for which the first view includes users


@dataclass(frozen=True)
class View:
    """The rows, newest job first.

    :param at: the time at which the rows were read, in seconds since the epoch. It is ``None``, and rows may be
        missing, until the first refresh has ended.
    :param error: the reason why the last refresh failed; empty if it succeeded.
    """

    rows: tuple[Row, ...] = ()
    at: float | None = None
    error: str = ""


class Index:
    """The index of one bucket. The parameters are those of :class:`~mlengine.job_index.bucket_rows.BucketRows`."""

    def __init__(self, storage: Storage, bucket: str, backends: Backends, find_users: FindUsers | None = None) -> None:
        self._rows = BucketRows(storage, bucket, backends, find_users)
        self._view = View()
        self._refreshed = float("-inf")
        self._refreshing = threading.Lock()
        self._first = threading.Event()
        self._fresh = threading.Event()

    def view(self) -> View:
        """The current rows. A refresh is started if the last one is older than :data:`REFRESH_INTERVAL`.

        The call waits for the refresh only if there are no rows yet, or if they are stale.
        """
        age = time.monotonic() - self._refreshed
        if age >= REFRESH_INTERVAL and self._refreshing.acquire(blocking=False):
            self._fresh.clear()
            # The refresh runs in a separate thread, so that the request does not wait for it.
            threading.Thread(target=self._refresh, name="mlengine-index", daemon=True).start()
        if self._view.at is None and not self._view.error:
            self._first.wait(_FIRST_WAIT)
        elif age >= STALE:
            self._fresh.wait(_STALE_WAIT)
        return self._view

    def refresh(self) -> View:
        """Refresh now, and wait until it is done, including the comparison with the objects' generations."""
        self._refreshing.acquire()
        self._refresh()
        return self._view

    def read(self, job_dir: JobDir) -> CurrentJob | None:
        """Read one job now, and update its row in the index. Return ``None`` if there is no such job."""
        return self._rows.read(job_dir)

    def _refresh(self) -> None:
        try:
            with ThreadPoolExecutor(THREADS, thread_name_prefix="mlengine-index") as pool:
                self._rows.refresh(pool, self._show_part)
                self._rows.add_users((row.model, row.job_id) for row in self._ordered()[:_FIRST_PAGE])
                self._show()
                # The remaining refresh takes longer, and rarely changes the rows that are shown.
                self._rows.check(pool)
                self._rows.add_users(list(self._rows.rows))
                self._show()
                self._rows.save(pool)
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

    def _show(self) -> None:
        self._view = View(self._ordered(), time.time())
        self._first.set()
        self._fresh.set()

    def _show_part(self) -> None:
        """Show the rows that have been read so far, until the first refresh has ended."""
        if self._view.at is None:
            self._view = replace(self._view, rows=self._ordered())
            self._first.set()

    def _ordered(self) -> tuple[Row, ...]:
        rows = list(self._rows.rows.values())
        return tuple(sorted(rows, key=lambda row: (row.claimed or 0.0, row.job_id), reverse=True))
