"""All replicas' lines of a job from Cloud Logging, each once, over restarts of the reader.

Entries may arrive after later ones. So a read goes back a little behind the newest entry seen and leaves out those it
had: the cursor keeps the time and short digests of the ids seen in that span, and is all there is to keep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlengine.backends import LogLine, LogPage
from mlengine.backends.vertex.client import RestClient
from mlengine.backends.vertex.states import replica_name

OVERLAP_SECONDS = 10.0
MAX_SEEN = 2000  # ids in a cursor; a faster log narrows the span instead
PAGE = 1000
_LAUNCHER = "launcher"


@dataclass(frozen=True)
class _Entry:
    stamp: str
    time: float
    digest: str
    line: LogLine


def read(client: RestClient, endpoint: str, name: str, cursor: Mapping[str, Any], limit: int) -> LogPage:
    """Up to ``limit`` new lines of the custom job ``name`` (``projects/P/locations/R/customJobs/N``).

    :raises BackendUnavailableError: Cloud Logging did not answer; the same cursor works later.
    """
    window = cursor.get("window", ())
    seen = {digest for _, digest in window}
    _, project, *_, number = name.split("/")
    query = f'resource.type="ml_job" AND resource.labels.job_id="{number}"'
    if window:
        query += f' AND timestamp>="{window[0][0]}"'
    body: dict[str, Any] = {
        "resourceNames": [f"projects/{project}"],
        "filter": query,
        "orderBy": "timestamp asc",
        "pageSize": min(PAGE, limit + len(seen)),
    }
    fresh: list[_Entry] = []
    while True:
        answer = client.call("POST", f"{endpoint}/v2/entries:list", body=body) or {}
        found = (_entry(raw) for raw in answer.get("entries", ()))
        fresh += [entry for entry in found if entry.digest not in seen]
        token = answer.get("nextPageToken")
        if not token or len(fresh) >= limit:
            break
        body["pageToken"] = token
    page = fresh[:limit]
    more = bool(token) or len(fresh) > limit
    return LogPage(tuple(entry.line for entry in page), _advance(cursor, page), more)


def _advance(cursor: Mapping[str, Any], page: list[_Entry]) -> dict[str, Any]:
    """The cursor after ``page``: time and digest of each entry in the span that the next read goes back over."""
    if not page:
        return dict(cursor)
    known = [(stamp, digest) for stamp, digest in cursor.get("window", ())]
    known += [(entry.stamp, entry.digest) for entry in page]
    known.sort(key=lambda pair: seconds(pair[0]))
    floor = seconds(known[-1][0]) - OVERLAP_SECONDS
    kept = [pair for pair in known if seconds(pair[0]) >= floor]
    if len(kept) > MAX_SEEN:
        # The next read starts at the first time kept, so of one moment either all entries are kept or none.
        cut = kept[-MAX_SEEN - 1][0]
        kept = [pair for pair in kept[-MAX_SEEN:] if pair[0] != cut] or kept[-MAX_SEEN:]
    return {"window": [list(pair) for pair in kept]}


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
        stamp=stamp,
        time=seconds(stamp),
        digest=hashlib.sha256(identity.encode()).hexdigest()[:10],
        line=LogLine(replica, str(payload).rstrip("\n"), seconds(stamp)),
    )


def seconds(stamp: str) -> float:
    """Seconds since the epoch of an RFC 3339 time; nanoseconds are read, and kept to what a float can hold."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    base = datetime.fromisoformat(whole).replace(tzinfo=UTC)
    return (base + timedelta(seconds=float(f"0.{fraction}") if fraction else 0)).timestamp()


def rfc3339(moment: float) -> str:
    """``moment``, in seconds since the epoch, as Google writes times."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
