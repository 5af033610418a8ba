"""``entries:list`` of Cloud Logging, the method with which clients read a job's log.

A page is read from the index of the log store. If a filter matches few of many entries, a page ends early, with a token
and few or no entries, as in the service when it "did not have time to search all the possible log entries". A page also
ends early if its newest lines have not been collected yet.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator.http import Rendered, page_size
from mlengine.emulator.journal import Journal
from mlengine.emulator.log_store import Block, Position
from mlengine.emulator.logging_query import fields
from mlengine.emulator.logging_query.plan import JOB_ID, Plan, Range
from mlengine.emulator.logging_query.syntax import parse
from mlengine.emulator.records import Record

DEFAULT_PAGE, LARGEST_PAGE = 50, 1000
MAX_EXAMINED = 5_000  # entries for which one call evaluates the filter
COLLECT_SECONDS = 0.02
_MAX_RESOURCES = 100
_FIELDS = frozenset({"resourceNames", "projectIds", "filter", "orderBy", "pageSize", "pageToken"})
_ORDERS = frozenset({"", "timestamp", "timestamp asc", "timestamp desc"})
_TYPE = "ml_job"
_ANY_PLACE = 2**62
Key = tuple[int, int, int]  # time, place, stream
_START: Key = (-1, 0, 0)


@dataclass(frozen=True)
class _Query:
    """A valid request.

    :param after: the last entry of the previous page, in the order of the request; ``None`` on the first page.
    :param digest: the digest of the parameters that must be the same for all pages.
    """

    projects: frozenset[str]
    plan: Plan
    descending: bool
    size: int
    after: Key | None
    digest: str


@dataclass(frozen=True)
class _Stream:
    """A job's entries of one severity.

    :param constant: for each task, the beginning of an entry as JSON.
    """

    number: int
    record: Record
    severity: str
    range: Range
    constant: dict[str, str] = field(default_factory=dict)


def list_entries(
    journal: Journal,
    records: Sequence[Record],
    body: Mapping[str, Any],
    refresh: Callable[[Sequence[Record]], Sequence[Record]],
) -> Rendered:
    """Handle a request to ``entries:list``.

    :param records: all jobs.
    :param body: the request.
    :param refresh: returns records with their current states. It is called with the records that the request can match.
    :raises EmulatorApiError: a field of the request is unknown or invalid.
    """
    query = _read(body)
    ids = query.plan.job_ids
    wanted: Sequence[Record] = [
        record
        for record in records
        if record.project in query.projects and (ids is None or record.id.casefold() in ids)
    ]
    wanted = refresh(wanted)
    # In descending order, the newest entries come first, so all lines must have been collected.
    seconds = None if query.descending else COLLECT_SECONDS
    collected = [journal.collect(record, seconds) for record in wanted]
    streams = [stream for record in wanted for stream in _streams(journal, record, query.plan)]
    entries, last = _page(journal, streams, query)
    if last is None and not all(collected):
        last = query.after or _START
    # Empty fields are left out, as in list_response(); entries are JSON already.
    fields = [f'"entries":[{",".join(entries)}]'] if entries else []
    fields += [f'"nextPageToken":"{_token(last, query.digest)}"'] if last else []
    return Rendered(f"{{{','.join(fields)}}}")


def all_entries(journal: Journal, record: Record) -> list[dict[str, Any]]:
    """All entries of a job, for tests."""
    journal.collect(record)
    streams = _streams(journal, record, _plan(""))
    blocks = _merged(journal, streams, None, descending=False)
    return [entry for stream, block in blocks for entry in _Entries(stream, block, descending=False).all()]


def _page(journal: Journal, streams: Iterable[_Stream], query: _Query) -> tuple[list[str], Key | None]:
    """The entries of a page as JSON, and the key of the last examined entry if more may follow."""
    found: list[str] = []
    last: Key | None = None
    examined = 0
    for stream, block in _merged(journal, streams, query.after, descending=query.descending):
        entries = _Entries(stream, block, descending=query.descending)
        begin = 0
        while begin < len(entries):
            end = min(begin + query.size - len(found), begin + MAX_EXAMINED - examined, len(entries))
            if end <= begin:
                return found, last
            found += entries.matching(begin, end)
            last = entries.key(end - 1)
            begin, examined = end, examined + end - begin
    return found, None


def _streams(journal: Journal, record: Record, plan: Plan) -> Iterator[_Stream]:
    stored = journal.log_of(record)
    for severity, number in stored.streams.items() if stored is not None else ():
        name = fields.severity_name(severity)
        constants = {
            ("resource", "type"): _TYPE,
            JOB_ID: record.id,
            ("resource", "labels", "project_id"): record.project,
            ("severity",): name,
        }
        part = plan.range(constants)
        if part is not None:
            yield _Stream(number, record, name, part)


def _merged(
    journal: Journal, streams: Iterable[_Stream], after: Key | None, *, descending: bool
) -> Iterator[tuple[_Stream, Block]]:
    """The lines of all streams after a position, in order of time, place and stream."""
    heads: list[tuple[Key, int, _Stream, Block, Iterator[Block]]] = []

    def push(stream: _Stream, block: Block | None, rest: Iterator[Block]) -> None:
        if block is not None:
            moment, place = block.last() if descending else block.first()
            key = (-moment, -place, -stream.number) if descending else (moment, place, stream.number)
            heapq.heappush(heads, (key, stream.number, stream, block, rest))

    for stream in streams:
        blocks = _blocks(journal, stream, after, descending=descending)
        push(stream, next(blocks, None), blocks)
    while heads:
        _, number, stream, block, rest = heapq.heappop(heads)
        if not heads:
            yield stream, block
            yield from ((stream, other) for other in rest)
            return
        # Yield lines up to the first line of another stream.
        moment, place, other = map(abs, heads[0][0])
        count = block.before((moment, place), included=(number < other) is not descending)
        count = block.size - count if descending else count
        yield stream, _part(block, 0, count, descending=descending)
        left = _part(block, count, block.size, descending=descending)
        push(stream, left if left.size else next(rest, None), rest)


def _part(block: Block, begin: int, end: int, *, descending: bool) -> Block:
    """The lines ``begin`` to ``end`` of a block. In descending order, they are counted from the last line."""
    count = block.size
    return block.cut(count - end, count - begin) if descending else block.cut(begin, end)


def _blocks(journal: Journal, stream: _Stream, after: Key | None, *, descending: bool) -> Iterator[Block]:
    first: Position = (stream.range.first, 0)
    last: Position = (stream.range.last, _ANY_PLACE)
    if after is not None:
        moment, place, number = after
        if descending:
            last = min(last, (moment, place if stream.number < number else place - 1))
        else:
            first = max(first, (moment, place if stream.number > number else place + 1))
    return journal.store.scan(stream.number, first, last, descending=descending)


def _read(body: Mapping[str, Any]) -> _Query:
    for name in sorted(set(body) - _FIELDS):
        raise EmulatorApiError(f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.')
    for name in ("filter", "orderBy", "pageToken"):
        if not isinstance(body.get(name, ""), str):
            raise EmulatorApiError(f"Invalid value at '{name}' (TYPE_STRING)")
    size, order, text = page_size(body.get("pageSize")), body.get("orderBy", ""), body.get("filter", "")
    if order not in _ORDERS:
        raise EmulatorApiError(f"Invalid orderBy: {order}")
    names = _strings(body, "resourceNames")
    projects = frozenset({_project_of(name) for name in names} | set(_strings(body, "projectIds")))
    if not projects:
        raise EmulatorApiError("Must specify at least one resource name.")
    if len(projects) > _MAX_RESOURCES:
        raise EmulatorApiError(f"At most {_MAX_RESOURCES} resources may be specified in a request.")
    descending = order.endswith("desc")
    same = json.dumps([sorted(projects), descending, text])
    digest = hashlib.sha256(same.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    after = _position(body["pageToken"], digest) if body.get("pageToken") else None
    return _Query(projects, _plan(text), descending, min(size or DEFAULT_PAGE, LARGEST_PAGE), after, digest)


@lru_cache(maxsize=32)
def _plan(text: str) -> Plan:
    return Plan(parse(text))


def _token(key: Key, digest: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([*key, digest]).encode()).decode()


def _position(token: str, digest: str) -> Key:
    try:
        moment, place, stream, made_for = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
        key = (int(moment), int(place), int(stream))
    except (ValueError, TypeError) as error:
        raise EmulatorApiError(f"Invalid page token: {token}") from error
    if max(map(abs, key)) > _ANY_PLACE:
        raise EmulatorApiError(f"Invalid page token: {token}")
    if made_for != digest:
        raise EmulatorApiError("page_token doesn't match arguments from the request")
    return key


def _strings(body: Mapping[str, Any], name: str) -> list[str]:
    values = body.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise EmulatorApiError(f"Invalid value at '{name}' (TYPE_STRING), {json.dumps(values)[:200]}")
    return values


def _project_of(name: str) -> str:
    parts = name.split("/")
    if parts[0] not in {"projects", "organizations", "folders", "billingAccounts"} or not all(parts) or len(parts) < 2:
        raise EmulatorApiError(f"Invalid resource name: '{name}'; it must be projects/PROJECT.")
    return parts[1] if parts[0] == "projects" else name


class _Entries:
    """The entries of a block, in the order of a request."""

    def __init__(self, stream: _Stream, block: Block, *, descending: bool) -> None:
        self._stream, self._task = stream, block.task
        moment, place = block.first()
        step = -1 if descending else 1
        self._moments = range(moment, moment + block.size)[::step]
        self._place = place - moment  # an entry's place minus its time
        self._texts = block.strings()[::step]

    def __len__(self) -> int:
        return len(self._texts)

    def key(self, number: int) -> Key:
        """The sort key of an entry."""
        moment = self._moments[number]
        return moment, moment + self._place, self._stream.number

    def matching(self, begin: int, end: int) -> list[str]:
        """The matching entries from number ``begin`` to ``end``, as JSON, most of which is the same for all entries."""
        lines: Iterable[tuple[int, str]] = zip(self._moments[begin:end], self._texts[begin:end], strict=True)
        matches, constant, place = self._stream.range.matches, self._constant(), self._place
        if matches is not None:
            lines = (line for line in lines if matches(self._entry(*line)))
        return [
            f'{constant},"timestamp":"{(stamp := f"{_second(moment // 1_000_000)}{moment % 1_000_000:06d}Z")}",'
            f'"receiveTimestamp":"{stamp}","insertId":"{moment + place:012d}","jsonPayload":{{"message":{text}}}}}'
            for moment, text in lines
        ]

    def all(self) -> list[dict[str, Any]]:
        """All entries of the block."""
        return [self._entry(*line) for line in zip(self._moments, self._texts, strict=True)]

    def _constant(self) -> str:
        """The beginning of each entry as JSON."""
        found = self._stream.constant.get(self._task)
        if found is None:
            entry = self._entry(0, '""')
            for name in ("timestamp", "receiveTimestamp", "insertId", "jsonPayload"):
                del entry[name]
            found = self._stream.constant[self._task] = json.dumps(entry, separators=(",", ":"))[:-1]
        return found

    def _entry(self, moment: int, text: str) -> dict[str, Any]:
        """One entry as a mapping, for filters that use its fields."""
        record, task = self._stream.record, self._task
        stamp = f"{_second(moment // 1_000_000)}{moment % 1_000_000:06d}Z"
        return {
            "logName": f"projects/{record.project}/logs/{task}",
            "resource": {
                "type": _TYPE,
                "labels": {"job_id": record.id, "project_id": record.project, "task_name": task},
            },
            "timestamp": stamp,
            "receiveTimestamp": stamp,
            "severity": self._stream.severity,
            "insertId": f"{moment + self._place:012d}",
            "labels": {"ml.googleapis.com/task_name": task},
            "jsonPayload": {"message": json.loads(text)},
        }


@lru_cache(maxsize=64)
def _second(moment: int) -> str:
    """The beginning of a timestamp, up to its second."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
