"""The jobs' log lines as entries of Cloud Logging, and ``entries:list``, the method that clients of a job need.

A line gets its timestamp and its position when the emulator reads it first. Both are stored on disk, so that a client's
cursor stays valid when the emulator is restarted. Does not: write entries, or store those of other resources.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlengine.backends import LogLine, TrainingBackend
from mlengine.backends.vertex.states import POOL_NAMES
from mlengine.core.errors import EmulatorApiError
from mlengine.core.spec import Role
from mlengine.core.times import rfc3339
from mlengine.emulator.filters import parse
from mlengine.emulator.http import page, page_size
from mlengine.emulator.records import VERTEX, Key, Record, file_name

_PAGE = 1000
_FIELDS = frozenset({"resourceNames", "projectIds", "filter", "orderBy", "pageSize", "pageToken"})
_ORDERS = frozenset({"", "timestamp", "timestamp asc", "timestamp desc"})
_ML_TASKS = {Role.CHIEF: "master-replica", Role.WORKER: "worker-replica", Role.PS: "ps-replica"}


class Journal:
    """The log entries of all jobs: one file for each job, to which new lines are appended."""

    def __init__(self, backend: TrainingBackend, folder: Path) -> None:
        self._backend, self._folder = backend, folder
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.RLock()
        self._cache: dict[Key, tuple[dict[str, Any], list[dict[str, Any]]]] = {}

    def read(self, record: Record) -> list[dict[str, Any]]:
        """All entries of a job, including new ones.

        :raises BackendUnavailableError: the backend cannot be reached.
        """
        with self._lock:
            cursor, entries = self._open(record)
            if not entries and record.notes:
                lines = [LogLine("launcher", note, record.created) for note in record.notes]
                self._append(record, cursor, entries, lines)
            while record.handle is not None:
                lines_page = self._backend.logs(record.handle, cursor)
                cursor = dict(lines_page.cursor)
                if lines_page.lines:
                    self._append(record, cursor, entries, lines_page.lines)
                if not lines_page.more:
                    break
            self._cache[record.key] = (cursor, entries)
            return list(entries)

    def start_again(self, record: Record) -> None:
        """Read what is left of the log of the record's backend job. The next read begins that of another one."""
        with self._lock:
            entries = self.read(record)
            self._append(record, {}, entries, [])
            self._cache[record.key] = ({}, entries)

    def _open(self, record: Record) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if record.key in self._cache:
            return self._cache[record.key]
        cursor: dict[str, Any] = {}
        entries: list[dict[str, Any]] = []
        path = self._path(record)
        if path.exists():
            for text in path.read_text("utf-8").splitlines():
                batch = json.loads(text)
                cursor = batch["cursor"]
                entries += batch["entries"]
        return cursor, entries

    def _append(
        self, record: Record, cursor: Mapping[str, Any], entries: list[dict[str, Any]], lines: Sequence[LogLine]
    ) -> None:
        # One timestamp for a batch, later than all before it, so that a cursor by time misses no entry.
        now = time.time()
        new = [_entry(record, line, now, len(entries) + place) for place, line in enumerate(lines)]
        with self._path(record).open("a", encoding="utf-8") as sink:
            sink.write(json.dumps({"cursor": dict(cursor), "entries": new}) + "\n")
        entries += new

    def _path(self, record: Record) -> Path:
        return self._folder / f"{file_name(record.key)}.jsonl"


def list_entries(journal: Journal, records: Sequence[Record], body: Mapping[str, Any]) -> dict[str, Any]:
    """``entries:list``.

    :param records: all jobs.
    :param body: the request.
    :raises EmulatorApiError: a field of the request is unknown or invalid.
    """
    projects, order = _check_request(body)
    condition = parse(body.get("filter", ""))
    wanted = condition.equals("resource.labels.job_id")
    found = [
        entry
        for record in records
        if record.project in projects and (wanted is None or record.id == wanted)
        for entry in journal.read(record)
        if condition.matches(partial(_field, entry))
    ]
    found.sort(key=lambda entry: (entry["timestamp"], entry["insertId"]), reverse=order.endswith("desc"))
    entries, token = page(found, body.get("pageSize"), body.get("pageToken"), _PAGE)
    return {"entries": list(entries), **({"nextPageToken": token} if token else {})}


def _check_request(body: Mapping[str, Any]) -> tuple[set[str], str]:
    """The projects and the order that are requested."""
    for name in sorted(set(body) - _FIELDS):
        raise EmulatorApiError(f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.')
    for name in ("filter", "orderBy", "pageToken"):
        if not isinstance(body.get(name, ""), str):
            raise EmulatorApiError(f"Invalid value at '{name}' (TYPE_STRING)")
    page_size(body.get("pageSize"))
    order = body.get("orderBy", "")
    if order not in _ORDERS:
        raise EmulatorApiError(f"Invalid orderBy: {order}")
    projects = {_project_of(name) for name in _strings(body, "resourceNames")} | set(_strings(body, "projectIds"))
    if not projects:
        raise EmulatorApiError("Must specify at least one resource name.")
    return projects, order


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


def _entry(record: Record, line: LogLine, moment: float, place: int) -> dict[str, Any]:
    role, _, index = line.replica.rpartition("-")
    tasks = POOL_NAMES if record.api == VERTEX else _ML_TASKS
    task = f"{tasks[Role(role)]}-{index}" if role in set(Role) and Role(role) in tasks else "service"
    return {
        "logName": f"projects/{record.project}/logs/{task}",
        "resource": {
            "type": "ml_job",
            "labels": {"job_id": record.id, "project_id": record.project, "task_name": task},
        },
        "timestamp": rfc3339(moment),
        "severity": "INFO" if task == "service" else "ERROR" if "Traceback (most recent" in line.text else "INFO",
        "insertId": f"{place:012d}",
        "labels": {"ml.googleapis.com/task_name": task},
        "jsonPayload": {"message": line.text},
    }


def _field(entry: Mapping[str, Any], path: str) -> str | None:
    value: Any = entry
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return str(value)
