"""The log store: order, restarts, crashes, and files that are not one."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mlengine.core.errors import EmulatorError
from mlengine.emulator.log_store import Line, LogStore

EVERYTHING = (0, 0), (2**62, 0)
CRASH = """
import os, signal, sys
from pathlib import Path
from mlengine.emulator.log_store import Line, LogStore
store = LogStore(Path(sys.argv[1]))
log = store.job("a")
for batch in range(1_000_000):
    store.append(log, [Line(200, "t", f"{batch} {number}") for number in range(10)], {"batch": batch})
    print(batch, flush=True)
"""


def lines(*texts: str, severity: int = 200) -> list[Line]:
    return [Line(severity, "workerpool0-0", text) for text in texts]


def texts(store: LogStore, stream: int, *, descending: bool = False) -> list[str]:
    return [row[3] for row in store.scan(stream, *EVERYTHING, descending=descending)]


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
    rows = sorted(row for stream in streams for row in store.scan(stream, *EVERYTHING))
    assert [row[3] for row in rows] == ["1", "2", "E", "x", "3"]
    assert len({row[0] for row in rows}) == len(rows), "each line has its own time"


def test_a_part_of_a_stream_is_read(store: LogStore) -> None:
    log = store.job("a")
    count = 3000
    store.append(log, lines(*map(str, range(count))), {})
    (stream,) = log.streams.values()
    rows = list(store.scan(stream, *EVERYTHING))
    assert [int(row[3]) for row in rows] == list(range(count))
    first, last = rows[100][:2], rows[2899][:2]
    for descending in (False, True):
        found = list(store.scan(stream, first, last, descending=descending))
        assert found == (rows[100:2900][::-1] if descending else rows[100:2900])
    assert list(store.scan(stream, last, first)) == []


def test_another_process_reads_what_was_stored(store: LogStore, tmp_path: Path) -> None:
    log = store.job("a")
    store.append(log, lines("1", "2"), {"at": 2}, stage=3)
    newest = max(row[0] for row in store.scan(log.streams[200], *EVERYTHING))
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
    store._connection.execute("CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT raise(FAIL, 'disk full'); END")
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
            connection.execute("PRAGMA user_version = 2")
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE other (x)")
    expected = {
        "text": "not a database",
        "newer": "its format is 2; this version of mlengine reads format 1",
        "other program": "the database of another program",
    }
    with pytest.raises(EmulatorError, match=f"cannot open the log store .*{expected[what]}") as refused:
        LogStore(path)
    assert "--state-dir" in refused.value.hint
