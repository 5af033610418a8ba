"""The log store: order, restarts, crashes, and invalid files."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mlengine.core.errors import EmulatorError
from mlengine.emulator.log_store import BLOCK_CHARACTERS, Lines, LogStore, Position

CRASH = """
import os, signal, sys
from pathlib import Path
from mlengine.emulator.log_store import Lines, LogStore
store = LogStore(Path(sys.argv[1]))
log = store.job("a")
for batch in range(1_000_000):
    store.append(log, [Lines(200, "t", [f"{batch} {number}" for number in range(10)])], {"batch": batch})
    print(batch, flush=True)
"""


def lines(*texts: str, severity: int = 200) -> list[Lines]:
    return [Lines(severity, "workerpool0-0", texts)]


def rows(
    store: LogStore, stream: int, first: Position = (0, 0), last: Position = (2**62, 0), *, descending: bool = False
) -> list[tuple[int, int, str, str]]:
    """The time, position, task and text of each line, in the order of the scan."""
    found = []
    for block in store.scan(stream, first, last, descending=descending):
        moment, place = block.first()
        part = [
            (moment + number, place + number, block.task, json.loads(text))
            for number, text in enumerate(block.strings())
        ]
        assert part[-1][:2] == block.last()
        found += part[::-1] if descending else part
    return found


def texts(store: LogStore, stream: int, *, descending: bool = False) -> list[str]:
    return [row[3] for row in rows(store, stream, descending=descending)]


@pytest.fixture
def store(tmp_path: Path) -> LogStore:
    return LogStore(tmp_path / "entries.sqlite3")


def test_lines_are_stored_by_severity_with_increasing_times(store: LogStore) -> None:
    one, other = store.job("a"), store.job("b")
    store.append(one, [*lines("1", "2"), *lines("E", severity=500)], {"at": 3})
    store.append(other, lines("x"), {})
    store.append(one, lines("3"), {"at": 4})
    assert texts(store, one.streams[200]) == ["1", "2", "3"]
    assert texts(store, one.streams[200], descending=True) == ["3", "2", "1"]
    assert texts(store, one.streams[500]) == ["E"]
    assert (one.cursor, one.lines) == ({"at": 4}, 4)
    streams = [*one.streams.values(), *other.streams.values()]
    found = sorted(row for stream in streams for row in rows(store, stream))
    assert [row[3] for row in found] == ["1", "2", "E", "x", "3"]
    assert len({row[0] for row in found}) == len(found), "each line must have its own time"


def test_part_of_a_stream_can_be_read(store: LogStore) -> None:
    log = store.job("a")
    count = 3000
    for begin in range(0, count, 750):
        store.append(log, lines(*map(str, range(begin, begin + 750))), {})
    (stream,) = log.streams.values()
    every = rows(store, stream)
    assert [int(row[3]) for row in every] == list(range(count))
    for begin, end in ((100, 2900), (749, 751), (750, 750), (0, 2999)):
        first, last = every[begin][:2], every[end][:2]
        for descending in (False, True):
            found = rows(store, stream, first, last, descending=descending)
            assert found == (every[begin : end + 1][::-1] if descending else every[begin : end + 1])
    moment, place = every[100][:2]
    assert rows(store, stream, (moment, place + 1), (moment, place + 5)) == []
    assert rows(store, stream, (moment, 0), (moment, place)) == [every[100]]
    assert rows(store, stream, every[2][:2], every[1][:2]) == []


def test_one_read_takes_few_blocks(store: LogStore) -> None:
    """A scan that stops early has read little, even if the lines are long."""
    log = store.job("a")
    store.append(log, lines(*(f"{number} {'x' * 4000}" for number in range(3000))), {})
    (stream,) = log.streams.values()
    block = next(store.scan(stream, (0, 0), (2**62, 0)))
    assert len(block.texts) <= 2 * BLOCK_CHARACTERS
    assert len(store._read(stream, (0, 0), (2**62, 0), 50, descending=False)) <= 5


def test_lines_with_all_characters_are_stored(store: LogStore) -> None:
    log, odd = store.job("a"), ["", "a\nb", "\r\n", '"\\', "Größe \u2028", "\0", "\U0001f600"]
    store.append(log, lines(*odd), {})
    assert texts(store, log.streams[200]) == odd


def test_another_process_reads_the_stored_lines(store: LogStore, tmp_path: Path) -> None:
    log = store.job("a")
    store.append(log, lines("1", "2"), {"at": 2}, stage=3)
    newest = max(row[0] for row in rows(store, log.streams[200]))
    store.close()
    store.close()
    again = LogStore(tmp_path / "entries.sqlite3")
    found = again.find("a")
    assert found is not None
    assert (found.cursor, found.lines, found.stage) == ({"at": 2}, 2, 3)
    again._latest = newest + 10**12  # the clock was set back
    again.append(found, lines("3"), {})
    assert texts(again, found.streams[200]) == ["1", "2", "3"]
    assert again.find("b") is None


def test_lines_and_cursor_are_stored_together(store: LogStore) -> None:
    log = store.job("a")
    store.append(log, lines("1"), {"at": 1})
    store._connection.execute("CREATE TRIGGER full BEFORE INSERT ON blocks BEGIN SELECT raise(FAIL, 'disk full'); END")
    with pytest.raises(EmulatorError, match=r"cannot write the log store .*: disk full"):
        store.append(log, lines("2", severity=500), {"at": 2})
    assert (log.cursor, log.lines, set(log.streams)) == ({"at": 1}, 1, {200})
    store._connection.execute("DROP TRIGGER full")
    store.append(log, lines("2", severity=500), {"at": 2})
    assert texts(store, log.streams[500]) == ["2"]


def test_a_killed_process_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "entries.sqlite3"
    process = subprocess.Popen([sys.executable, "-c", CRASH, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while int(process.stdout.readline()) < 20:
        pass
    os.kill(process.pid, signal.SIGKILL)
    confirmed = max([20, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
    process.wait()
    store = LogStore(path)
    log = store.find("a")
    assert log is not None
    batches = log.cursor["batch"] + 1
    assert batches > confirmed
    assert texts(store, log.streams[200]) == [f"{batch} {number}" for batch in range(batches) for number in range(10)]


@pytest.mark.parametrize("what", ["text", "other program", "newer"])
def test_a_file_that_is_not_a_log_store_is_an_error(tmp_path: Path, what: str) -> None:
    path = tmp_path / "entries.sqlite3"
    if what == "text":
        path.write_text("not a database, but long enough to have a header")
    elif what == "newer":
        LogStore(path).close()
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 3")
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE other (x)")
    expected = {
        "text": "not a database",
        "newer": "its format is 3; this version of mlengine reads format 2",
        "other program": "the database of another program",
    }
    with pytest.raises(EmulatorError, match=f"cannot open the log store .*{expected[what]}") as refused:
        LogStore(path)
    assert "--state-dir" in refused.value.hint


FIRST_FORMAT = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, cursor TEXT NOT NULL, lines INTEGER NOT NULL,
    stage INTEGER NOT NULL
);
CREATE TABLE streams (number INTEGER PRIMARY KEY, job INTEGER NOT NULL, severity INTEGER NOT NULL);
CREATE TABLE entries (
    stream INTEGER NOT NULL, time INTEGER NOT NULL, place INTEGER NOT NULL, task TEXT NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (stream, time, place)
) WITHOUT ROWID;
INSERT INTO jobs VALUES (1, 'a', '{"at": 5}', 6, 3);
INSERT INTO streams VALUES (1, 1, 200), (2, 1, 500);
INSERT INTO entries VALUES
    (1, 100, 0, 't', 'one'), (1, 101, 1, 't', 'two'), (2, 102, 2, 't', 'error'), (1, 103, 3, 't', 'Größe'),
    (1, 103, 4, 't', 'same time'), (1, 104, 5, 'u', 'other task');
PRAGMA application_id = 1835822183;
PRAGMA user_version = 1;
"""


def test_the_first_format_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "entries.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.executescript(FIRST_FORMAT)
    connection.close()
    for _ in range(2):
        store = LogStore(path)
        log = store.find("a")
        assert log is not None
        assert (log.cursor, log.lines, log.stage) == ({"at": 5}, 6, 3)
        assert rows(store, 1) == [
            (100, 0, "t", "one"),
            (101, 1, "t", "two"),
            (103, 3, "t", "Größe"),
            (103, 4, "t", "same time"),
            (104, 5, "u", "other task"),
        ]
        assert rows(store, 2) == [(102, 2, "t", "error")]
        store.close()
