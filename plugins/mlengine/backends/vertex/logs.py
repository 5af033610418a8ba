"""Reads the lines of all of a job's replicas from Cloud Logging: each line once, even if the reader is restarted.

An entry may arrive after entries with later times. So a read starts a little before the newest entry seen, and skips
the entries that it has read: the cursor contains the times and short digests of the ids seen in that span. The cursor
is the whole state of a reader.

Every query has a start time, at first the job's creation: without one, Google searches through all that is stored.
If Google "did not have time to search all", the answer has no entries and a page token. A read ends with the first
answer that has new lines, and after at most :data:`MAX_CALLS` calls. A remaining token stays in the cursors, and the
next read of the same jobs continues from it.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from mlengine.backends import LogLine, LogPage
from mlengine.backends.vertex.client import RestClient
from mlengine.backends.vertex.jobs import parse
from mlengine.backends.vertex.log_budget import LogBudget
from mlengine.backends.vertex.states import replica_name
from mlengine.core.errors import BackendError, BackendThrottledError
from mlengine.core.times import rfc3339, seconds

log = logging.getLogger(__name__)

OVERLAP_SECONDS = 10.0
# The time after a complete search during which late entries are still found, even if the job writes nothing.
QUIET_SECONDS = 3600.0
MAX_SEEN = 2000  # ids in a cursor; if a log has more in the span, the span becomes shorter
PAGE = 1000
MAX_CALLS = 5
JOBS_A_CALL = 150  # a filter has at most 20,000 characters
RETENTION_SECONDS = 30 * 86400.0  # in Cloud Logging's default bucket: the earliest start for jobs of unknown age
_LAUNCHER = "launcher"
_TIME = re.compile(r"(19|20)[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")
# The results are cached, as a cursor's timestamps are read again with each page.
_seconds = lru_cache(maxsize=2 * MAX_SEEN)(seconds)


def checked(cursor: Any) -> Mapping[str, Any]:
    """The cursor, or an empty one if it is invalid: the log is then read from its beginning.

    A cursor comes from the job dir, to which trainers may write, or from a browser, and its times become parts of a
    filter.
    """
    if not isinstance(cursor, Mapping) or not cursor:
        return {}
    search = cursor.get("search")
    valid = (
        _is_time(cursor.get("since"))
        and _is_window(cursor.get("window"))
        and (search is None or (isinstance(search, Mapping) and _is_search(search)))
    )
    if not valid:
        log.warning("Ignoring an invalid log cursor; the log is read from its beginning")
        return {}
    return cursor


def _is_search(search: Mapping[str, Any]) -> bool:
    began = search.get("began")
    texts = isinstance(search.get("of"), str) and isinstance(search.get("token"), str)
    return texts and _is_time(search.get("since")) and isinstance(began, (int, float)) and 0 < began < 1e10


def _is_window(window: Any) -> bool:
    return isinstance(window, list) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and _is_time(pair[0]) and isinstance(pair[1], str)
        for pair in window
    )


def _is_time(value: Any) -> bool:
    return isinstance(value, str) and _is_time_text(value)


@lru_cache(maxsize=2 * MAX_SEEN)
def _is_time_text(value: str) -> bool:
    if not _TIME.fullmatch(value):
        return False
    try:
        seconds(value)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class JobLog:
    """The log of a job, to be read from a cursor.

    :param name: the job's resource name: ``projects/P/locations/R/customJobs/N``.
    :param created: the time of the job's creation, as RFC 3339; ``None`` if unknown.
    :param cursor: the position at which the last read ended: ``since`` and ``window``, and ``search`` if its search was
        not complete.
    """

    name: str
    cursor: Mapping[str, Any]
    created: str | None = None

    @property
    def project(self) -> str:
        """The project in the job's name.

        :raises BackendError: the name is not that of a job.
        """
        return parse(self.name)["project"]

    @property
    def number(self) -> str:
        """The job's number in its name.

        :raises BackendError: the name is not that of a job.
        """
        return parse(self.name)["number"]

    @property
    def since(self) -> str:
        """The start time of a new query: never before the job's creation."""
        starts = [start for start in (self.created, self.cursor.get("since")) if start]
        # The time is rounded to hours, so that the next query is the same.
        return max(starts, key=seconds) if starts else rfc3339((time.time() - RETENTION_SECONDS) // 3600 * 3600)


class _Entry(NamedTuple):
    number: str
    stamp: str
    time: float
    digest: str
    line: LogLine


@dataclass(frozen=True)
class _Search:
    """A query, and the position in its results.

    :param starts: the start time for each job.
    :param began: the time at which the search began, in seconds since the epoch.
    """

    project: str
    logs: Sequence[JobLog]
    starts: Sequence[str]
    limit: int
    began: float
    token: str | None = None

    @classmethod
    def next(cls, project: str, logs: Sequence[JobLog], limit: int) -> _Search:
        """The search that the jobs' cursors have in common if there is one; otherwise a new one."""
        kept = [one.cursor.get("search") or {} for one in logs]
        first = kept[0]
        if first and all(other.get("of") == first["of"] and other["token"] == first["token"] for other in kept):
            starts = [str(one["since"]) for one in kept]
            search = cls(project, logs, starts, limit, first["began"], first["token"])
            # A token is valid only for the identical query.
            if search.digest == first["of"]:
                return search
        return cls(project, logs, [one.since for one in logs], limit, time.time())

    @property
    def body(self) -> dict[str, Any]:
        parts = [
            f'(resource.labels.job_id="{one.number}" AND timestamp>="{start}")'
            for one, start in zip(self.logs, self.starts, strict=True)
        ]
        return {
            "resourceNames": [f"projects/{self.project}"],
            "filter": f'resource.type="ml_job" AND ({" OR ".join(parts)})',
            "orderBy": "timestamp asc",
            "pageSize": min(PAGE, self.limit),
            **({"pageToken": self.token} if self.token else {}),
        }

    @property
    def digest(self) -> str:
        return hashlib.sha256(str(replace(self, token=None).body).encode()).hexdigest()[:12]

    def cursors(self) -> list[dict[str, Any]]:
        """The jobs' cursors, with which the next read continues this search."""
        digest = self.digest
        return [
            {
                "since": one.since,
                "window": [],
                **one.cursor,
                "search": {"of": digest, "since": start, "began": self.began, "token": self.token},
            }
            for one, start in zip(self.logs, self.starts, strict=True)
        ]


class LogReader:
    """Reads logs from one server.

    :param budget: returns the budget of a project.
    """

    def __init__(self, client: RestClient, server: str, budget: Callable[[str], LogBudget]) -> None:
        self._client, self._url = client, f"{server}/v2/entries:list"
        self._budget = budget

    def read(self, wanted: Sequence[JobLog], limit: int, *, urgent: bool = False) -> list[LogPage]:
        """Up to ``limit`` new lines for each job. One call reads up to :data:`JOBS_A_CALL` jobs of a project.

        :param urgent: whether some of the jobs have ended.
        :raises BackendUnavailableError: Cloud Logging did not answer; the same cursors can be used later.
        """
        pages: dict[str, LogPage] = {}
        projects: dict[str, list[JobLog]] = {}
        for one in wanted:
            projects.setdefault(one.project, []).append(one)
        for project, logs in projects.items():
            for begin in range(0, len(logs), JOBS_A_CALL):
                pages |= self._read(project, logs[begin : begin + JOBS_A_CALL], limit, urgent=urgent)
        return [pages[one.name] for one in wanted]

    def _read(self, project: str, logs: Sequence[JobLog], limit: int, *, urgent: bool) -> dict[str, LogPage]:
        budget = self._budget(project)
        search = _Search.next(project, logs, limit)
        wait = 0.0
        for number in range(MAX_CALLS):
            wait = budget.take(urgent=urgent)
            if wait and not number:
                return {one.name: LogPage((), one.cursor, wait=wait) for one in logs}
            if wait:
                break
            try:
                answer = self._client.call("POST", self._url, body=search.body, retry=False) or {}
            except BackendThrottledError as error:
                wait = budget.throttled(error.retry_after)
                break
            except BackendError as error:
                if error.retryable or not search.token:
                    raise
                # The token is refused: it is valid for one day only.
                return {one.name: LogPage((), _without_search(one.cursor), wait=0.0) for one in logs}
            search = replace(search, token=answer.get("nextPageToken"))
            new = _new_entries(logs, answer)
            if any(new.values()):
                return _pages(search, new)
            if not search.token:
                return {one.name: LogPage((), _quiet(one.cursor, search.began)) for one in logs}
        cursors = search.cursors() if search.token else [one.cursor for one in logs]
        return {one.name: LogPage((), cursor, wait=wait) for one, cursor in zip(logs, cursors, strict=True)}


def _new_entries(logs: Sequence[JobLog], answer: Mapping[str, Any]) -> dict[str, list[_Entry]]:
    """The entries that the cursors do not contain, by the job's number."""
    seen = {one.number: {digest for _, digest in one.cursor.get("window", ())} for one in logs}
    # A search that is continued has an older start, and may repeat an entry that the cursor no longer contains.
    floors = {one.number: seconds(one.cursor["since"]) if "since" in one.cursor else -math.inf for one in logs}
    found: dict[str, list[_Entry]] = {number: [] for number in seen}
    for entry in map(_entry, answer.get("entries", ())):
        number = entry.number
        if number in seen and entry.digest not in seen[number] and entry.time >= floors[number]:
            found[number].append(entry)
    return found


def _pages(search: _Search, new: Mapping[str, list[_Entry]]) -> dict[str, LogPage]:
    """The pages of lines in one answer, by the job's name."""
    unfinished = search.token is not None
    cursors = search.cursors() if unfinished else [_without_search(one.cursor) for one in search.logs]
    # Entries that arrived during the search may have been skipped.
    overlap = OVERLAP_SECONDS + max(0.0, time.time() - search.began)
    pages = {}
    for one, cursor in zip(search.logs, cursors, strict=True):
        entries = new[one.number]
        lines = tuple(entry.line for entry in entries)
        wait = 0.0 if unfinished and not lines else None
        # Until the search is complete, entries after its last one are not known, even if newer entries are.
        newest = entries[-1].time if unfinished and entries else math.inf
        after = _advance(cursor, entries, overlap, newest)
        pages[one.name] = LogPage(lines, after, more=unfinished and bool(lines), wait=wait)
    return pages


def _without_search(cursor: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cursor.items() if name != "search"}


def _quiet(cursor: Mapping[str, Any], searched: float) -> dict[str, Any]:
    """The cursor after a complete search without new entries: the next search must not cover days of silence."""
    kept = _without_search(cursor)
    floor = math.floor(searched - QUIET_SECONDS)
    if "since" not in kept or seconds(kept["since"]) > floor - QUIET_SECONDS:
        return kept
    return {"since": rfc3339(floor), "window": [pair for pair in kept["window"] if seconds(pair[0]) >= floor]}


def _advance(cursor: Mapping[str, Any], page: list[_Entry], overlap: float, newest: float) -> dict[str, Any]:
    """The cursor after ``page``: the next read's start, and time and digest of each known entry from there on."""
    if not page:
        return dict(cursor)
    known = [(_seconds(stamp), stamp, digest) for stamp, digest in cursor.get("window", ())]
    known += [(entry.time, entry.stamp, entry.digest) for entry in page]
    known.sort(key=_time)
    floor = min(known[-1][0] - overlap, newest)
    if "since" in cursor:  # older entries are no longer known
        floor = max(floor, seconds(cursor["since"]))
    kept = known[bisect_left(known, floor, key=_time) :]
    since = rfc3339(floor)
    if len(kept) > MAX_SEEN:
        # No entry older than the kept ones may be read again, so entries with equal times are all kept or all dropped.
        cut = kept[-MAX_SEEN - 1][1]
        kept = [one for one in kept[-MAX_SEEN:] if one[1] != cut] or kept[-MAX_SEEN:]
        since = kept[0][1]
    return {**cursor, "since": since, "window": [[stamp, digest] for _, stamp, digest in kept]}


def _time(known: tuple[float, str, str]) -> float:
    return known[0]


def _entry(raw: Mapping[str, Any]) -> _Entry:
    stamp = str(raw.get("timestamp") or raw.get("receiveTimestamp") or "1970-01-01T00:00:00Z")
    labels = (raw.get("resource") or {}).get("labels") or {}
    replica, payload, moment = _replica(str(labels.get("task_name", ""))), _payload(raw), _seconds(stamp)
    identity = f"{raw.get('insertId', '')}|{stamp}|{replica}|{'' if raw.get('insertId') else payload}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
    line = LogLine(replica, str(payload).rstrip("\n"), moment)
    return _Entry(str(labels.get("job_id", "")), stamp, moment, digest, line)


@lru_cache(maxsize=1024)
def _replica(task: str) -> str:
    return replica_name(task) or _LAUNCHER


def _payload(raw: Mapping[str, Any]) -> Any:
    """An entry's text, or else its JSON or protocol buffer data."""
    payload = raw.get("textPayload")
    if payload is not None:
        return payload
    data = raw.get("jsonPayload") or raw.get("protoPayload") or {}
    return data.get("message", data) if isinstance(data, dict) else data
