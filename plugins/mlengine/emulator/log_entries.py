"""The jobs' log lines as Cloud Logging's entries, and the one read of it that clients of a job need.

Lines get their time and a place in the order when the service first reads them, on disk, so that a client's cursor
holds over a restart of the service. Does not: take entries, keep them for other resources, or forget any.
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
from mlengine.core.errors import ServiceRefusalError
from mlengine.core.spec import Role
from mlengine.core.times import rfc3339
from mlengine.emulator.filters import parse
from mlengine.emulator.records import VERTEX, Record

_PAGE = 1000
_ML_TASKS = {Role.CHIEF: "master-replica", Role.WORKER: "worker-replica", Role.PS: "ps-replica"}


class Journal:
    """One file of entries a job, which grows as the backend gives lines."""

    def __init__(self, backend: TrainingBackend, folder: Path) -> None:
        self._backend, self._folder = backend, folder
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.RLock()
        self._kept: dict[tuple[str, str, str, str], tuple[dict[str, Any], list[dict[str, Any]]]] = {}

    def read(self, record: Record) -> list[dict[str, Any]]:
        """All entries of a job, those that are new among them.

        :raises BackendUnavailableError: the backend does not answer.
        """
        with self._lock:
            cursor, entries = self._open(record)
            if not entries and record.notes:
                lines = [LogLine("launcher", note, record.created) for note in record.notes]
                self._keep(record, cursor, entries, lines)
            while record.handle is not None:
                page = self._backend.logs(record.handle, cursor)
                cursor = dict(page.cursor)
                if page.lines:
                    self._keep(record, cursor, entries, page.lines)
                if not page.more:
                    break
            self._kept[record.key] = (cursor, entries)
            return list(entries)

    def _open(self, record: Record) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if record.key in self._kept:
            return self._kept[record.key]
        cursor: dict[str, Any] = {}
        entries: list[dict[str, Any]] = []
        path = self._path(record)
        if path.exists():
            for text in path.read_text("utf-8").splitlines():
                line = json.loads(text)
                cursor = line["cursor"]
                entries += line["entries"]
        return cursor, entries

    def _keep(
        self, record: Record, cursor: Mapping[str, Any], entries: list[dict[str, Any]], lines: Sequence[LogLine]
    ) -> None:
        # One time for a batch, later than all before it: an order in time that no client's cursor can miss.
        now = time.time()
        fresh = [_entry(record, line, now, len(entries) + place) for place, line in enumerate(lines)]
        with self._path(record).open("a", encoding="utf-8") as sink:
            sink.write(json.dumps({"cursor": dict(cursor), "entries": fresh}) + "\n")
        entries += fresh

    def _path(self, record: Record) -> Path:
        return self._folder / ("-".join(part for part in record.key if part) + ".jsonl")


def list_entries(journal: Journal, records: Sequence[Record], body: Mapping[str, Any]) -> dict[str, Any]:
    """``entries:list``.

    :raises ServiceRefusalError: a filter or an order that Cloud Logging would not take either.
    """
    condition = parse(str(body.get("filter", "")))
    order = str(body.get("orderBy", "timestamp asc"))
    if order not in {"timestamp asc", "timestamp desc", "timestamp"}:
        raise ServiceRefusalError(f"Invalid orderBy: {order}")
    projects = {name.split("/")[1] for name in body.get("resourceNames", ()) if name.startswith("projects/")}
    projects |= set(body.get("projectIds", ()))
    if not projects:
        raise ServiceRefusalError("Must specify at least one resource name.")
    wanted = condition.equals("resource.labels.job_id")
    found = [
        entry
        for record in records
        if record.project in projects and (wanted is None or record.id == wanted)
        for entry in journal.read(record)
        if condition.matches(partial(_field, entry))
    ]
    found.sort(key=lambda entry: (entry["timestamp"], entry["insertId"]), reverse=order.endswith("desc"))
    size = min(int(body.get("pageSize") or _PAGE), _PAGE)
    begin = int(body.get("pageToken") or 0)
    answer: dict[str, Any] = {"entries": found[begin : begin + size]}
    if begin + size < len(found):
        answer["nextPageToken"] = str(begin + size)
    return answer


def _entry(record: Record, line: LogLine, moment: float, place: int) -> dict[str, Any]:
    role, _, index = line.replica.rpartition("-")
    tasks = POOL_NAMES if record.face == VERTEX else _ML_TASKS
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
