"""Stores the log lines of all jobs in an SQLite database.

::

    jobs(number, name, cursor, lines, stage)           one row for each job
    streams(number, job, severity)                     one for each severity that a job has logged
    blocks(stream, time, place, count, task, texts)    consecutive lines of a replica, in the order of reading

A block has up to :data:`BLOCK_LINES` lines, one JSON string per line of ``texts``, as responses contain them. The lines
have consecutive times and places, beginning with those of the first line. Therefore a page of entries is only a few
rows, however many lines there are.

Lines and the cursor after them are written in one transaction, so that a killed process neither loses lines nor stores
them twice. After a power failure, the last lines may be missing, together with their cursor. They are then read from
the backend again, with new timestamps.

Each line has a later timestamp than all earlier lines of all jobs. A client that continues from the time or page token
of its last line therefore misses none.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mlengine.core.errors import EmulatorError

VERSION = 2
BLOCK_LINES, BLOCK_CHARACTERS = 1000, 64 << 10
_APPLICATION = 0x6D6C6C67  # "mllg"
_BLOCKS = """
CREATE TABLE blocks (
    stream INTEGER NOT NULL, time INTEGER NOT NULL, place INTEGER NOT NULL, count INTEGER NOT NULL,
    task TEXT NOT NULL, texts TEXT NOT NULL, PRIMARY KEY (stream, time, place)
);
"""
_SCHEMA = f"""
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, cursor TEXT NOT NULL, lines INTEGER NOT NULL,
    stage INTEGER NOT NULL
);
CREATE TABLE streams (number INTEGER PRIMARY KEY, job INTEGER NOT NULL, severity INTEGER NOT NULL);
{_BLOCKS}
"""
_INSERT = "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?)"
# The query for the block that may contain a position.
_START = (
    "SELECT time, place FROM blocks WHERE stream = ? AND (time, place) <= (?, ?) ORDER BY time DESC, place DESC LIMIT 1"
)
_RANGE = (
    "SELECT time, place, count, task, texts FROM blocks"
    " WHERE stream = ? AND (time, place) >= (?, ?) AND (time, place) <= (?, ?)"
)
_LATEST = "SELECT time + count - 1 FROM blocks WHERE stream = ? ORDER BY time DESC, place DESC LIMIT 1"
_ASCENDING = f"{_RANGE} ORDER BY time, place"
_DESCENDING = f"{_RANGE} ORDER BY time DESC, place DESC"
_FIRST_READ, _LARGEST_READ = 50, 1000  # lines read at once from one stream
_JSON_LINES = json.JSONEncoder(separators=("\n", ":"))
Position = tuple[int, int]  # time in microseconds, place


class Lines(NamedTuple):
    """Consecutive lines to store.

    :param severity: the severity, a rank in :data:`mlengine.emulator.logging_query.fields.SEVERITIES`.
    :param task: the service's name for the replica.
    """

    severity: int
    task: str
    texts: Sequence[str]


class Block(NamedTuple):
    """Consecutive stored lines: those from ``begin`` to ``end`` of ``texts``.

    :param time: the time of the first line of ``texts``, in microseconds since the epoch. Each further line is one
        microsecond later.
    :param place: the place of the first line of ``texts`` in the job's log.
    :param texts: each line as a JSON string, separated by line feeds.
    """

    time: int
    place: int
    task: str
    texts: str
    begin: int
    end: int

    def strings(self) -> list[str]:
        """The lines as JSON strings."""
        return self.texts.split("\n")[self.begin : self.end]

    @property
    def size(self) -> int:
        """The number of lines in the block."""
        return self.end - self.begin

    def first(self) -> Position:
        """The position of the first line."""
        return self.time + self.begin, self.place + self.begin

    def last(self) -> Position:
        """The position of the last line."""
        return self.time + self.end - 1, self.place + self.end - 1

    def cut(self, begin: int, end: int) -> Block:
        """The block's lines from number ``begin`` to ``end``. Both may be out of range."""
        first = min(self.begin + max(0, begin), self.end)
        last = max(first, min(self.begin + end, self.end))
        if first == self.begin and last == self.end:
            return self
        return Block(self.time, self.place, self.task, self.texts, first, last)

    def before(self, position: Position, *, included: bool) -> int:
        """The number of lines before a position; with ``included``, a line at the position counts too."""
        moment, place = self.first()
        count = position[0] - moment
        count += place + count < position[1] + included
        return max(0, min(count, self.size))


@dataclass
class JobLog:
    """The log of a job.

    :param cursor: the backend's cursor after the stored lines.
    :param lines: the number of stored lines.
    :param stage: the last stage whose messages of the service are stored.
    :param streams: the numbers of the job's streams, by severity.
    """

    number: int
    name: str
    cursor: dict[str, Any] = field(default_factory=dict)
    lines: int = 0
    stage: int = 0
    streams: dict[int, int] = field(default_factory=dict)


class LogStore:
    """The database of log lines; see the module's docstring. Thread-safe.

    :param path: the database file, which is created if it is missing.
    :raises EmulatorError: the file cannot be opened, is not a log store, or was written by another version.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.RLock()
        self._jobs: dict[str, JobLog] = {}
        try:
            # Autocommit, because transactions are explicit.
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._open()
        except sqlite3.Error as error:
            raise EmulatorError(
                f"cannot open the log store {path}: {error}",
                hint="check its permissions, and whether another version wrote it; or choose another --state-dir",
            ) from error

    def close(self) -> None:
        """Close the database. May be called more than once."""
        with self._lock:
            self._connection.close()

    def job(self, name: str) -> JobLog:
        """The log of a job, which is created if it is missing."""
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
        self, log: JobLog, lines: Sequence[Lines], cursor: Mapping[str, Any], *, stage: int | None = None
    ) -> None:
        """Store lines and the backend's cursor after them, in one transaction.

        :raises EmulatorError: the lines cannot be written; then nothing is stored.
        """
        with self._lock:
            first = max(time.time_ns() // 1000, self._latest + 1)
            runs, count = [], 0
            for one in lines:
                runs.append((first + count, log.lines + count, one))
                count += len(one.texts)
            self._write(log, runs, cursor, log.stage if stage is None else stage)

    def restore(
        self, log: JobLog, rows: Sequence[tuple[int, int, str, str]], cursor: Mapping[str, Any], *, stage: int
    ) -> None:
        """Store lines from another format with their original times.

        :param rows: the time in microseconds, severity, task and text of each line, in order.
        """
        with self._lock:
            placed = [
                (severity, moment, place, task, text)
                for place, (moment, severity, task, text) in enumerate(rows, log.lines)
            ]
            self._write(log, list(_runs(sorted(placed))), cursor, stage)

    def scan(self, stream: int, first: Position, last: Position, *, descending: bool = False) -> Iterator[Block]:
        """The lines of a stream from ``first`` to ``last``, both included, in order of time and place.

        In descending order, the last block comes first, but the lines within each block are still in ascending order.
        Blocks are read in batches. Between batches, no lock is held and lines may be added.
        """
        size = _FIRST_READ
        while first <= last:
            blocks = self._read(stream, first, last, size, descending=descending)
            yield from blocks
            if sum(block.size for block in blocks) < size:
                return
            if descending:
                moment, place = blocks[-1].first()
                last = (moment, place - 1)
            else:
                moment, place = blocks[-1].last()
                first = (moment, place + 1)
            size = min(4 * size, _LARGEST_READ)

    def _read(self, stream: int, first: Position, last: Position, size: int, *, descending: bool) -> list[Block]:
        """Read blocks with about ``size`` lines: a few more, or fewer if there are no more."""
        found, count = [], 0
        with self._lock, closing(self._connection.cursor()) as cursor:
            start = cursor.execute(_START, (stream, *first)).fetchone() or first
            cursor.execute(_DESCENDING if descending else _ASCENDING, (stream, *start, *last))
            for moment, place, lines, task, texts in cursor:
                block = Block(moment, place, task, texts, 0, lines)
                if moment <= first[0] or moment + lines > last[0]:
                    block = block.cut(block.before(first, included=False), block.before(last, included=True))
                if block.size:
                    found.append(block)
                    count += block.size
                if count >= size:
                    break
        return found

    def _open(self) -> None:
        execute = self._connection.execute
        # Readers do not wait for the disk. The module's docstring describes the effect of a power failure.
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
        elif version == 1:
            self._convert()
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"its format is {version}; this version of mlengine reads format {VERSION}")
        by_number = {}
        for number, name, cursor, lines, stage in execute("SELECT number, name, cursor, lines, stage FROM jobs"):
            by_number[number] = self._jobs[name] = JobLog(number, name, json.loads(cursor), lines, stage)
        self._latest = 0
        for number, job, severity in execute("SELECT number, job, severity FROM streams").fetchall():
            by_number[job].streams[severity] = number
            latest = execute(_LATEST, (number,)).fetchone()
            self._latest = max(self._latest, latest[0] if latest else 0)

    def _convert(self) -> None:
        """Convert a database of the first format, which had one row per line."""
        execute = self._connection.execute
        with self._transaction():
            execute(_BLOCKS)
            rows = execute("SELECT stream, time, place, task, text FROM entries ORDER BY stream, time, place")
            for moment, place, (stream, task, texts) in _runs(rows):
                self._connection.executemany(_INSERT, _blocks(stream, moment, place, task, texts))
            execute("DROP TABLE entries")
            execute(f"PRAGMA user_version = {VERSION}")

    def _write(
        self, log: JobLog, runs: Sequence[tuple[int, int, Lines]], cursor: Mapping[str, Any], stage: int
    ) -> None:
        """Store lines.

        :param runs: for each run of lines, the time and place of the first line, and the lines.
        """
        execute, streams = self._connection.execute, dict(log.streams)
        count = sum(len(lines.texts) for _, _, lines in runs)
        with self._transaction():
            for severity in {lines.severity for _, _, lines in runs} - streams.keys():
                made = execute("INSERT INTO streams (job, severity) VALUES (?, ?)", (log.number, severity))
                streams[severity] = int(made.lastrowid or 0)
            for moment, place, (severity, task, texts) in runs:
                self._connection.executemany(_INSERT, _blocks(streams[severity], moment, place, task, texts))
            execute(
                "UPDATE jobs SET cursor = ?, lines = ?, stage = ? WHERE number = ?",
                (json.dumps(dict(cursor)), log.lines + count, stage, log.number),
            )
        log.streams, log.cursor, log.stage = streams, dict(cursor), stage
        log.lines += count
        self._latest = max(self._latest, max((moment + len(lines.texts) - 1 for moment, _, lines in runs), default=0))

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


def _blocks(
    stream: int, moment: int, place: int, task: str, texts: Sequence[str]
) -> Iterator[tuple[int, int, int, int, str, str]]:
    """The database rows for consecutive lines."""
    if not texts:
        return
    size = max(1, min(BLOCK_LINES, BLOCK_CHARACTERS // max(1, *map(len, texts))))
    for begin in range(0, len(texts), size):
        part = texts[begin : begin + size]
        yield stream, moment + begin, place + begin, len(part), task, _JSON_LINES.encode(part)[1:-1]


def _runs(rows: Iterable[tuple[int, int, int, str, str]]) -> Iterator[tuple[int, int, Lines]]:
    """Group single lines into runs of consecutive lines, each with the time and place of its first line.

    :param rows: the severity or stream, time, place, task and text of each line, sorted.
    """
    moment, place, run = 0, 0, Lines(0, "", [])
    texts: list[str] = []
    for key, at, number, task, text in rows:
        count = len(texts)
        if (key, task, at, number) != (run.severity, run.task, moment + count, place + count) or count == BLOCK_LINES:
            if texts:
                yield moment, place, run
            texts = []
            moment, place, run = at, number, Lines(key, task, texts)
        texts.append(text)
    if texts:
        yield moment, place, run
