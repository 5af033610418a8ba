"""State and log: written by the driver, read by the client."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from mlengine.backends.ray import logs
from mlengine.backends.ray.journal import CHUNK_LINES, Journal
from mlengine.backends.ray.output import Lines
from mlengine.backends.ray.record import chunk_uri, state_uri
from mlengine.core.errors import ObjectMissingError, StorageUnavailableError
from mlengine.core.job import JobState

OWN = "gs://b/m/job/ray/mlengine-k-1"
LOGS = "gs://b/m/job/logs/attempt-1"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlengine.backends.ray.journal._SHORTEST_SECONDS", 0.01)


class Bucket:
    """A bucket in memory.

    :param failures: the number of writes that fail before the first one that succeeds.
    """

    def __init__(self, failures: int = 0) -> None:
        self.objects: dict[str, bytes] = {}
        self.order: list[str] = []
        self.failures = failures
        self.failed = threading.Event()

    def write(self, uri: str, data: bytes, content_type: str | None = None) -> int:
        assert content_type != ""
        if self.failures:
            self.failures -= 1
            self.failed.set()
            raise StorageUnavailableError("no answer")
        self.objects[uri] = data
        self.order.append(uri)
        return 1

    def read(self, uri: str) -> bytes:
        if uri not in self.objects:
            raise ObjectMissingError(uri)
        return self.objects[uri]


def read_all(bucket: Bucket, limit: int) -> list[tuple[str, str]]:
    cursor: dict[str, Any] = {}
    found = []
    while True:
        page = logs.page(bucket, OWN, cursor, limit)
        assert len(page.lines) <= limit
        found += [(line.replica, line.text) for line in page.lines]
        cursor = json.loads(json.dumps(page.cursor))
        if not page.more:
            assert logs.page(bucket, OWN, cursor, limit).lines == ()
            return found


def test_every_line_is_read_once_in_pages_of_any_size() -> None:
    bucket = Bucket()
    journal = Journal(bucket, OWN, LOGS)
    lines = [(f"worker-{number % 3}", f"line {number} ü\u2028") for number in range(CHUNK_LINES + 10)]
    for replica, text in lines:
        journal.line(replica, text)
    assert journal.close()
    assert chunk_uri(OWN, 1) in bucket.objects
    for limit in (7, CHUNK_LINES, 5000):
        assert [replica for replica, _ in read_all(bucket, limit)] == [replica for replica, _ in lines]
    assert read_all(bucket, 100)[3][1] == "line 3 ü\\x2028"


def test_the_last_lines_are_written_before_the_final_state() -> None:
    bucket = Bucket()
    journal = Journal(bucket, OWN, LOGS)
    journal.state(JobState.SUCCEEDED, "done", ended=1.0)
    journal.line("chief-0", "last")
    assert journal.close()
    assert bucket.order.index(chunk_uri(OWN, 0)) < len(bucket.order)
    assert json.loads(bucket.objects[state_uri(OWN)]) == {"state": "SUCCEEDED", "detail": "done", "ended": 1.0}


def test_no_line_is_lost_while_the_bucket_does_not_respond() -> None:
    bucket = Bucket(failures=1)
    journal = Journal(bucket, OWN, LOGS)
    journal.line("chief-0", "one")
    assert bucket.failed.wait(30)
    journal.line("chief-0", "two")
    assert journal.close()
    assert read_all(bucket, 10) == [("chief-0", "one"), ("chief-0", "two")]
    # A chunk never changes, because a reader may have seen it even if its writer got no response.
    assert len(bucket.objects[chunk_uri(OWN, 0)].splitlines()) == 1


def test_a_job_without_a_log_has_an_empty_page() -> None:
    page = logs.page(Bucket(), OWN, {}, 10)
    assert (page.lines, page.more) == ((), False)


def test_output_is_split_into_lines_as_it_arrives() -> None:
    lines = Lines()
    assert lines.add(b"one\ntw") == ["one"]
    assert lines.add(b"o\r") == []
    assert lines.add(b"three\n\x1b[1mfour") == ["two", "three"]
    assert lines.add(b"", ended=True) == ["four"]
    assert lines.add(b"", ended=True) == []


def test_a_progress_bar_is_shown_while_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("mlengine.backends.ray.output.time.monotonic", lambda: now[0])
    lines = Lines()
    shown = []
    for percent in range(101):
        now[0] += 0.5
        shown += lines.add(b"\r%3d %%" % percent)
    shown += lines.add(b"\nend\n")
    assert shown[0] == "  0 %"
    assert shown[-2:] == ["100 %", "end"]
    assert 8 <= len(shown) <= 22, "there must not be a line for each of the 101 states"
