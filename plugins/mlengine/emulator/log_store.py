"""The log lines of all jobs on disk: an SQLite database.

::

    jobs(number, name, cursor, lines, stage)           one row for each job
    streams(number, job, severity)                     one for each severity that a job has logged
    entries(stream, time, place, task, text)           one for each line, in the order that they are read in

A page of entries is a range of the primary key, however many lines there are. Lines and the cursor after them are
written in one transaction: a process that is killed loses none and stores none twice. After a power failure, the last
lines may be missing together with the cursor after them; they are read from the backend again, with new timestamps.

Each line has a later timestamp than all lines before it, of all jobs. A client that reads from the time or from the
page token of the last line that it got therefore misses none.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mlengine.core.errors import EmulatorError

VERSION = 1
_APPLICATION = 0x6D6C6C67  # "mllg"
_SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, cursor TEXT NOT NULL, lines INTEGER NOT NULL,
    stage INTEGER NOT NULL
);
CREATE TABLE streams (number INTEGER PRIMARY KEY, job INTEGER NOT NULL, severity INTEGER NOT NULL);
CREATE TABLE entries (
    stream INTEGER NOT NULL, time INTEGER NOT NULL, place INTEGER NOT NULL, task TEXT NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (stream, time, place)
) WITHOUT ROWID;
"""
_RANGE = (
    "SELECT time, place, task, text FROM entries"
    " WHERE stream = ? AND (time, place) >= (?, ?) AND (time, place) <= (?, ?)"
)
_ASCENDING = f"{_RANGE} ORDER BY time, place LIMIT ?"
_DESCENDING = f"{_RANGE} ORDER BY time DESC, place DESC LIMIT ?"
_FIRST_READ, _LARGEST_READ = 50, 1000  # rows read at once from one stream


class Line(NamedTuple):
    """A line to store.

    :param severity: a rank of :data:`mlengine.emulator.logging_query.fields.SEVERITIES`.
    :param task: the replica as the service names it.
    """

    severity: int
    task: str
    text: str


@dataclass
class JobLog:
    """The log of a job.

    :param cursor: the backend's cursor after the lines that are stored.
    :param lines: how many lines are stored.
    :param stage: the last of the service's own messages that are stored.
    :param streams: the numbers of its streams by severity.
    """

    number: int
    name: str
    cursor: dict[str, Any] = field(default_factory=dict)
    lines: int = 0
    stage: int = 0
    streams: dict[int, int] = field(default_factory=dict)


Row = tuple[int, int, str, str]  # time in microseconds, place, task, text
Position = tuple[int, int]


class LogStore:
    """See the module's docstring. Thread-safe.

    :param path: the database; created if it is missing.
    :raises EmulatorError: it cannot be opened, is not a log store, or another version wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.RLock()
        self._jobs: dict[str, JobLog] = {}
        try:
            # Autocommit: transactions are explicit.
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._open()
        except sqlite3.Error as error:
            raise EmulatorError(
                f"cannot open the log store {path}: {error}",
                hint="check its permissions, and whether another version wrote it; or choose another --state-dir",
            ) from error

    def close(self) -> None:
        """Close the database. Safe to repeat."""
        with self._lock:
            self._connection.close()

    def job(self, name: str) -> JobLog:
        """The log of a job; created if it is missing."""
        with self._lock:
            found = self._jobs.get(name)
            if found is None:
                with self._transaction():
                    row = self._connection.execute(
                        "INSERT INTO jobs (name, cursor, lines, stage) VALUES (?, '{}', 0, 0)", (name,)
                    )
                    found = JobLog(int(row.lastrowid or 0), name)
                self._jobs[name] = found
            return found

    def find(self, name: str) -> JobLog | None:
        """The log of a job; ``None`` if nothing has been stored."""
        with self._lock:
            return self._jobs.get(name)

    def append(
        self, log: JobLog, lines: Sequence[Line], cursor: Mapping[str, Any], *, stage: int | None = None
    ) -> None:
        """Store lines, and the backend's cursor after them, at once.

        :raises EmulatorError: they cannot be written; nothing is stored.
        """
        with self._lock:
            first = max(time.time_ns() // 1000, self._latest + 1)
            times = range(first, first + len(lines))
            self._write(log, list(zip(times, lines, strict=True)), cursor, log.stage if stage is None else stage)

    def restore(self, log: JobLog, rows: Sequence[tuple[int, Line]], cursor: Mapping[str, Any], *, stage: int) -> None:
        """Store the lines of another format with the times that they had.

        :param rows: times in microseconds, and lines, in their order.
        """
        with self._lock:
            self._write(log, rows, cursor, stage)

    def scan(self, stream: int, first: Position, last: Position, *, descending: bool = False) -> Iterator[Row]:
        """The rows of a stream from ``first`` to ``last``, both included, in order of time and place.

        Rows are read in parts. Between them, no lock is held and rows may be added.
        """
        size = _FIRST_READ
        while first <= last:
            with self._lock:
                rows = self._connection.execute(
                    _DESCENDING if descending else _ASCENDING, (stream, *first, *last, size)
                ).fetchall()
            yield from rows
            if len(rows) < size:
                return
            moment, place = rows[-1][:2]
            first, last = (first, (moment, place - 1)) if descending else ((moment, place + 1), last)
            size = min(4 * size, _LARGEST_READ)

    def _open(self) -> None:
        execute = self._connection.execute
        # Readers do not wait for the disk; see the docstring for what a power failure means.
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")
        application = execute("PRAGMA application_id").fetchone()[0]
        version = execute("PRAGMA user_version").fetchone()[0]
        if not execute("SELECT 1 FROM sqlite_master").fetchone():
            self._connection.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
            )
        elif application != _APPLICATION:
            raise sqlite3.DatabaseError("it is the database of another program")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"its format is {version}; this version of mlengine reads format {VERSION}")
        by_number = {}
        for number, name, cursor, lines, stage in execute("SELECT number, name, cursor, lines, stage FROM jobs"):
            by_number[number] = self._jobs[name] = JobLog(number, name, json.loads(cursor), lines, stage)
        self._latest = 0
        for number, job, severity in execute("SELECT number, job, severity FROM streams").fetchall():
            by_number[job].streams[severity] = number
            latest = execute("SELECT max(time) FROM entries WHERE stream = ?", (number,)).fetchone()[0]
            self._latest = max(self._latest, latest or 0)

    def _write(self, log: JobLog, rows: Sequence[tuple[int, Line]], cursor: Mapping[str, Any], stage: int) -> None:
        execute, streams = self._connection.execute, dict(log.streams)
        with self._transaction():
            for severity in {line.severity for _, line in rows} - streams.keys():
                made = execute("INSERT INTO streams (job, severity) VALUES (?, ?)", (log.number, severity))
                streams[severity] = int(made.lastrowid or 0)
            self._connection.executemany(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?)",
                [
                    (streams[severity], moment, place, task, text)
                    for place, (moment, (severity, task, text)) in enumerate(rows, log.lines)
                ],
            )
            execute(
                "UPDATE jobs SET cursor = ?, lines = ?, stage = ? WHERE number = ?",
                (json.dumps(dict(cursor)), log.lines + len(rows), stage, log.number),
            )
        log.streams, log.cursor, log.stage = streams, dict(cursor), stage
        log.lines += len(rows)
        self._latest = max(self._latest, max((moment for moment, _ in rows), default=0))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise EmulatorError(f"cannot write the log store {self._path}: {error}", hint="free disk space") from error
