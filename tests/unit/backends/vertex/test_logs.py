"""Reading logs: each line once, whatever the pages, late arrivals and restarts of the reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mlengine.backends import LogLine
from mlengine.backends.vertex import logs
from mlengine.core.times import rfc3339
from mlengine.emulator.filters import parse

JOB = "projects/p/locations/r/customJobs/7"
OTHER = "projects/p/locations/r/customJobs/8"


class CloudLogging:
    """As much of it as there is to know: a filter, an order, pages of its own size."""

    def __init__(self, page: int = 1000) -> None:
        self.entries: list[dict[str, Any]] = []
        self.calls = 0
        self._page = page

    def write(self, text: str, moment: float, job: str = JOB, task: str = "workerpool1-0") -> None:
        self.entries.append(
            {
                "insertId": f"{len(self.entries):06d}",
                "timestamp": rfc3339(moment),
                "textPayload": text,
                "resource": {"type": "ml_job", "labels": {"job_id": job.rsplit("/", 1)[1], "task_name": task}},
            }
        )

    def call(self, method: str, url: str, *, body: Mapping[str, Any]) -> dict[str, Any]:
        assert (method, url) == ("POST", "https://logs/v2/entries:list")
        self.calls += 1
        condition = parse(body["filter"])
        found = [entry for entry in self.entries if condition.matches(partial(_field, entry))]
        found.sort(key=lambda entry: (entry["timestamp"], entry["insertId"]))
        begin, size = int(body.get("pageToken", 0)), min(self._page, body["pageSize"])
        answer: dict[str, Any] = {"entries": found[begin : begin + size]}
        return {**answer, "nextPageToken": str(begin + size)} if begin + size < len(found) else answer


def _field(entry: Mapping[str, Any], path: str) -> str:
    value: Any = entry
    for name in path.split("."):
        value = value[name]
    return str(value)


def read(server: Any, cursor: Mapping[str, Any], limit: int = 1000) -> tuple[list[LogLine], Mapping[str, Any]]:
    page = logs.read(server, "https://logs", [(JOB, cursor)], limit)[0]
    return list(page.lines), page.cursor


MOMENTS = st.lists(st.tuples(st.floats(0, 30), st.floats(0, logs.OVERLAP_SECONDS * 0.9)), max_size=40)


@given(moments=MOMENTS, limit=st.integers(1, 9), page=st.integers(1, 9))
def test_each_line_once(moments: Sequence[tuple[float, float]], limit: int, page: int) -> None:
    """Entries arrive at one time and bear an earlier one, as far back as a read looks."""
    server = CloudLogging(page)
    begin = 1_800_000_000.0
    seen: list[LogLine] = []
    cursor: Mapping[str, Any] = {}
    arriving = sorted(moments, key=lambda pair: pair[0])
    for number, (arrives, late) in enumerate(arriving):
        server.write(str(number), begin + arrives - late)
        if number % 3 == 0:
            # The reader may be restarted at any time: only the cursor is kept.
            lines, cursor = read(server, dict(cursor), 1000)
            seen += lines
    while True:
        lines, cursor = read(server, dict(cursor), limit)
        if not lines:
            break
        seen += lines
    assert sorted(int(line.text) for line in seen) == list(range(len(moments)))


def test_many_known_entries_of_one_moment_are_read_past() -> None:
    server = CloudLogging(page=1)
    count = 2 * logs.MAX_PAGES
    for number in range(count):
        server.write(str(number), 1_800_000_000.0)
    cursor: Mapping[str, Any] = {}
    seen: list[str] = []
    for _ in range(count):
        lines, cursor = read(server, dict(cursor), 1)
        seen += [line.text for line in lines]
    assert sorted(map(int, seen)) == list(range(count))


def test_lines_say_which_replica_and_when() -> None:
    server = CloudLogging()
    server.write("hello\n", 1_800_000_000.25)
    server.write("provisioning", 1_800_000_001, task="service")
    server.entries.append(
        {**server.entries[0], "insertId": "x", "textPayload": None, "jsonPayload": {"message": "json"}}
    )
    del server.entries[-1]["textPayload"]
    lines, _ = read(server, {})
    assert LogLine("worker-0", "hello", 1_800_000_000.25) in lines
    assert LogLine("worker-0", "json", 1_800_000_000.25) in lines
    assert LogLine("launcher", "provisioning", 1_800_000_001.0) in lines


def test_many_jobs_are_one_call_each_with_its_own_lines() -> None:
    server = CloudLogging()
    for number in range(20):
        server.write(f"seven {number}", 1_800_000_000 + number)
        server.write(f"eight {number}", 1_800_000_000 + number, job=OTHER)
    pages = logs.read(server, "https://logs", [(JOB, {}), (OTHER, {})], 5)  # type: ignore[arg-type]
    assert [line.text for line in pages[1].lines] == [f"eight {number}" for number in range(5)]
    assert [page.more for page in pages] == [True, True]
    again = logs.read(server, "https://logs", [(OTHER, pages[1].cursor), (JOB, pages[0].cursor)], 100)  # type: ignore[arg-type]
    assert len(again[0].lines) == len(again[1].lines) == 15
    assert server.calls == 2


def test_a_fast_log_keeps_the_cursor_small() -> None:
    server = CloudLogging()
    for number in range(3 * logs.MAX_SEEN):
        server.write(str(number), 1_800_000_000 + number // 7 / 1000)
    seen: list[LogLine] = []
    cursor: Mapping[str, Any] = {}
    while True:
        lines, cursor = read(server, cursor)
        assert len(cursor.get("window", ())) <= logs.MAX_SEEN
        if not lines:
            break
        seen += lines
    assert [int(line.text) for line in seen] == list(range(3 * logs.MAX_SEEN))
