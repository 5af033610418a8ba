"""All replicas' lines of a job from Cloud Logging, each once, over restarts of the reader.

Entries may arrive after later ones. So a read goes back a little behind the newest entry seen and leaves out those it
had: the cursor keeps the time and short digests of the ids seen in that span, and is all there is to keep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlengine.backends import LogLine, LogPage
from mlengine.backends.vertex.client import RestClient
from mlengine.backends.vertex.states import replica_name
from mlengine.core.times import rfc3339, seconds

OVERLAP_SECONDS = 10.0
MAX_SEEN = 2000  # ids in a cursor; a faster log narrows the span instead
PAGE = 1000
MAX_PAGES = 20
JOBS_A_CALL = 150  # a filter has at most 20,000 characters
_LAUNCHER = "launcher"
Wanted = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class _Entry:
    number: str
    stamp: str
    time: float
    digest: str
    line: LogLine


def read(client: RestClient, endpoint: str, wanted: Wanted, limit: int) -> list[LogPage]:
    """For each job and its cursor up to ``limit`` new lines; :data:`JOBS_A_CALL` jobs of a project are one call.

    :param wanted: resource names (``projects/P/locations/R/customJobs/N``) with their cursors.
    :raises BackendUnavailableError: Cloud Logging did not answer; the same cursors work later.
    """
    pages: dict[str, LogPage] = {}
    projects: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for name, cursor in wanted:
        projects.setdefault(name.split("/")[1], []).append((name, cursor))
    for project, jobs in projects.items():
        for begin in range(0, len(jobs), JOBS_A_CALL):
            pages |= _read(client, endpoint, project, jobs[begin : begin + JOBS_A_CALL], limit)
    return [pages[name] for name, _ in wanted]


def _read(client: RestClient, endpoint: str, project: str, jobs: Wanted, limit: int) -> dict[str, LogPage]:
    body: dict[str, Any] = {
        "resourceNames": [f"projects/{project}"],
        "filter": _filter(jobs),
        "orderBy": "timestamp asc",
        "pageSize": PAGE,
    }
    seen = {_number(name): {digest for _, digest in cursor.get("window", ())} for name, cursor in jobs}
    fresh: dict[str, list[_Entry]] = {number: [] for number in seen}
    calls = 0
    while calls < MAX_PAGES:
        answer = client.call("POST", f"{endpoint}/v2/entries:list", body=body) or {}
        entries = [entry for entry in map(_entry, answer.get("entries", ())) if entry.number in seen]
        new = [entry for entry in entries if entry.digest not in seen[entry.number]]
        for entry in new:
            fresh[entry.number].append(entry)
        # Pages that repeat only known entries are not counted, or the read would never get past them. There are no more
        # of them than the cursors have entries.
        calls += bool(new or not entries)
        token = answer.get("nextPageToken")
        if not token or any(len(found) >= limit for found in fresh.values()):
            break
        body["pageToken"] = token
    pages = {}
    for name, cursor in jobs:
        found = fresh[_number(name)]
        page = found[:limit]
        lines = tuple(entry.line for entry in page)
        pages[name] = LogPage(lines, _advance(cursor, page), bool(token) or len(found) > limit)
    return pages


def _filter(jobs: Wanted) -> str:
    parts = []
    for name, cursor in jobs:
        since = f' AND timestamp>="{cursor["since"]}"' if "since" in cursor else ""
        parts.append(f'(resource.labels.job_id="{_number(name)}"{since})')
    return f'resource.type="ml_job" AND ({" OR ".join(parts)})'


def _number(name: str) -> str:
    return name.rsplit("/", 1)[1]


def _advance(cursor: Mapping[str, Any], page: list[_Entry]) -> dict[str, Any]:
    """The cursor after ``page``: where the next read begins, and time and digest of each entry known from there on."""
    if not page:
        return dict(cursor)
    known = [(stamp, digest) for stamp, digest in cursor.get("window", ())]
    known += [(entry.stamp, entry.digest) for entry in page]
    known.sort(key=lambda pair: seconds(pair[0]))
    floor = seconds(known[-1][0]) - OVERLAP_SECONDS
    kept = [pair for pair in known if seconds(pair[0]) >= floor]
    since = rfc3339(floor)
    if len(kept) > MAX_SEEN:
        # Nothing older than what is kept may be read again; of one moment either all entries are kept or none.
        cut = kept[-MAX_SEEN - 1][0]
        kept = [pair for pair in kept[-MAX_SEEN:] if pair[0] != cut] or kept[-MAX_SEEN:]
        since = kept[0][0]
    return {"since": since, "window": [list(pair) for pair in kept]}


def _entry(raw: Mapping[str, Any]) -> _Entry:
    stamp = str(raw.get("timestamp") or raw.get("receiveTimestamp") or "1970-01-01T00:00:00Z")
    payload = raw.get("textPayload")
    if payload is None:
        data = raw.get("jsonPayload") or raw.get("protoPayload") or {}
        payload = data.get("message", data) if isinstance(data, Mapping) else data
    labels = (raw.get("resource") or {}).get("labels") or {}
    replica = replica_name(str(labels.get("task_name", ""))) or _LAUNCHER
    identity = f"{raw.get('insertId', '')}|{stamp}|{replica}|{'' if raw.get('insertId') else payload}"
    return _Entry(
        number=str(labels.get("job_id", "")),
        stamp=stamp,
        time=seconds(stamp),
        digest=hashlib.sha256(identity.encode()).hexdigest()[:10],
        line=LogLine(replica, str(payload).rstrip("\n"), seconds(stamp)),
    )
