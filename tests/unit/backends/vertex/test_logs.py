"""Reading logs: each line once, for any page size, late entries, and restarts of the reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlengine.backends import LogLine, LogPage
from mlengine.backends.vertex import logs
from mlengine.backends.vertex.log_budget import LogBudget
from mlengine.core.errors import BackendError, BackendThrottledError
from mlengine.core.times import rfc3339
from mlengine.emulator.filters import parse

BEGIN = 1_800_000_000.0
CREATED = rfc3339(BEGIN - 60.0)
JOB = "projects/p/locations/r/customJobs/7"
OTHER = "projects/p/locations/r/customJobs/8"


class CloudLogging:
    """A fake Cloud Logging with filters, ordering, and a page size of its own."""

    def __init__(self, page: int = 1000) -> None:
        self.entries: list[dict[str, Any]] = []
        self.calls = 0
        self.empty = 0  # the number of responses that are empty because the search ran out of time
        self.bodies: list[dict[str, Any]] = []
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

    def call(self, method: str, url: str, *, body: Mapping[str, Any], retry: bool) -> dict[str, Any]:
        assert (method, url, retry) == ("POST", "https://logs/v2/entries:list", False)
        self.calls += 1
        self.bodies.append(dict(body))
        if self.empty:
            self.empty -= 1
            return {"nextPageToken": body.get("pageToken", "0")}
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


class Budget(LogBudget):
    """A budget of a fixed number of calls."""

    def __init__(self, calls: int = 1_000_000) -> None:
        self.calls = calls

    def take(self, *, urgent: bool = False) -> float:
        self.calls -= 1
        return 0.0 if self.calls >= 0 else 7.0

    def throttled(self, retry_after: float | None = None) -> float:
        return retry_after or 20.0


def read_pages(server: Any, wanted: Sequence[tuple[str, Mapping[str, Any]]], limit: int = 1000) -> list[LogPage]:
    assert all(logs.checked(cursor) == cursor for _, cursor in wanted), "our own cursor was rejected"
    reader = logs.LogReader(server, "https://logs", lambda _: Budget())
    return reader.read([logs.JobLog(name, cursor, CREATED) for name, cursor in wanted], limit)


def read(server: Any, cursor: Mapping[str, Any], limit: int = 1000) -> tuple[list[LogLine], Mapping[str, Any]]:
    """Read all lines of one page, with as many searches as that takes."""
    while True:
        page = read_pages(server, [(JOB, cursor)], limit)[0]
        cursor = page.cursor
        if page.wait is None:
            return list(page.lines), cursor


MOMENTS = st.lists(st.tuples(st.floats(0, 30), st.floats(0, logs.OVERLAP_SECONDS * 0.9)), max_size=40)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A function that sets the reader's clock."""
    now = [BEGIN]
    monkeypatch.setattr("mlengine.backends.vertex.logs.time.time", lambda: now[0])
    return lambda moment: now.__setitem__(0, moment)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moments=MOMENTS, limit=st.integers(1, 9), page=st.integers(1, 9))
def test_each_log_line_is_read_once(
    clock: Callable[[float], None], moments: Sequence[tuple[float, float]], limit: int, page: int
) -> None:
    """Entries have a timestamp before their arrival, by at most the period that a read covers again."""
    server = CloudLogging(page)
    begin = BEGIN
    seen: list[LogLine] = []
    cursor: Mapping[str, Any] = {}
    arriving = sorted(moments, key=lambda pair: pair[0])
    for number, (arrives, late) in enumerate(arriving):
        clock(begin + arrives)
        server.write(str(number), begin + arrives - late)
        if number % 3 == 0:
            # The reader may be restarted at any time, with only the cursor kept, even after an incomplete read.
            found = read_pages(server, [(JOB, dict(cursor))], limit)[0]
            cursor = found.cursor
            seen += found.lines
    clock(begin + 60.0)
    while True:
        lines, cursor = read(server, dict(cursor), limit)
        if not lines:
            break
        seen += lines
    assert sorted(int(line.text) for line in seen) == list(range(len(moments)))


SINCE = "2026-11-23T12:00:00.123456Z"
SEARCH = {"of": "ab", "since": SINCE, "began": BEGIN, "token": "t"}


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        [1],
        {"since": SINCE},
        {"window": []},
        {"since": '2026-11-23T12:00:00Z" OR resource.type="other', "window": []},
        {"since": "2026-99-23T12:00:00Z", "window": []},
        {"since": '2026-11-23"12:00:00', "window": []},
        {"since": SINCE, "window": [7]},
        {"since": SINCE, "window": [["now", "ab"]]},
        {"since": SINCE, "window": [], "search": {"a": 1}},
        {"since": SINCE, "window": [], "search": [1]},
        {"since": SINCE, "window": [], "search": {**SEARCH, "since": '"'}},
        {"since": SINCE, "window": [], "search": {**SEARCH, "began": "now"}},
    ],
)
def test_an_invalid_cursor_reads_the_log_from_its_beginning(cursor: Any) -> None:
    """The cursor may come from a browser, or from a file that the trainer can write."""
    assert logs.checked(cursor) == {}


@pytest.mark.parametrize("search", [{}, {"search": SEARCH}])
def test_our_own_cursor_is_valid(search: dict[str, Any]) -> None:
    cursor = {"since": SINCE, "window": [[SINCE, "abcdef0123"], ("2026-11-23T12:00:00+01:00", "ab")], **search}
    assert logs.checked(cursor) is cursor


def test_many_known_entries_with_one_timestamp_are_skipped() -> None:
    server = CloudLogging(page=1)
    count = 40
    for number in range(count):
        server.write(str(number), 1_800_000_000.0)
    cursor: Mapping[str, Any] = {}
    seen: list[str] = []
    for _ in range(count):
        lines, cursor = read(server, dict(cursor), 1)
        seen += [line.text for line in lines]
    assert sorted(map(int, seen)) == list(range(count))


def test_lines_have_the_replica_and_the_time() -> None:
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


def test_many_jobs_are_read_with_one_request_and_keep_their_lines() -> None:
    server = CloudLogging()
    for number in range(20):
        server.write(f"seven {number}", 1_800_000_000 + number)
        server.write(f"eight {number}", 1_800_000_000 + number, job=OTHER)
    pages = read_pages(server, [(JOB, {}), (OTHER, {})], 10)
    assert [line.text for line in pages[1].lines] == [f"eight {number}" for number in range(5)]
    assert [page.more for page in pages] == [True, True]
    again = read_pages(server, [(OTHER, pages[1].cursor), (JOB, pages[0].cursor)], 100)
    assert len(again[0].lines) == len(again[1].lines) == 15
    assert server.calls == 2
    assert "pageToken" not in server.bodies[1], "a new query must be sent"


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


def test_every_query_starts_at_the_creation_of_the_job(clock: Callable[[float], None]) -> None:
    server = CloudLogging()
    server.write("early", BEGIN)
    _, cursor = read(server, {})
    read(server, cursor)
    bounds = [body["filter"].partition('timestamp>="')[2].partition('"')[0] for body in server.bodies]
    assert bounds == [CREATED, rfc3339(BEGIN - logs.OVERLAP_SECONDS)]
    early = logs.JobLog(JOB, {"since": rfc3339(BEGIN - 70.0), "window": []}, CREATED)
    assert early.since == CREATED, "ten seconds before the first line may be before the job"
    assert "timestamp" not in logs.JobLog(JOB, {}).since
    assert logs.JobLog(JOB, {}).since > "2026", "for a deleted job, the range must be what Cloud Logging keeps"


@pytest.mark.parametrize("empty", [1, 3, 12])
def test_empty_pages_are_followed_by_token_a_limited_number_of_times(empty: int) -> None:
    server = CloudLogging()
    server.write("found", BEGIN)
    server.empty = empty
    cursor: Mapping[str, Any] = {}
    reads = 0
    while True:
        page = read_pages(server, [(JOB, cursor)])[0]
        reads += 1
        assert server.calls <= reads * logs.MAX_CALLS
        assert not page.more or page.lines, "a page with more must contain lines"
        cursor = page.cursor
        if page.lines:
            break
        assert page.wait == 0.0
    assert server.calls == empty + 1
    assert [("pageToken" in body) for body in server.bodies] == [False] + [True] * empty
    assert len({body["filter"] for body in server.bodies}) == 1, "a token must be used only with its query"
    assert "search" not in cursor


def test_a_search_that_finds_nothing_ends() -> None:
    server = CloudLogging()
    server.empty = 2
    page = read_pages(server, [(JOB, {})])[0]
    assert page.complete
    assert page.cursor == {}


def test_a_refused_token_restarts_the_search() -> None:
    class Old(CloudLogging):
        def call(self, method: str, url: str, *, body: Mapping[str, Any], retry: bool) -> dict[str, Any]:
            if "pageToken" in body:
                raise BackendError("400: Invalid page token")
            return super().call(method, url, body=body, retry=retry)

    server = Old()
    server.write("found", BEGIN)
    server.empty = 1
    page = read_pages(server, [(JOB, {})])[0]
    assert page.wait == 0.0
    assert [line.text for line in read_pages(server, [(JOB, page.cursor)])[0].lines] == ["found"]


def test_a_long_log_is_read_with_one_search() -> None:
    server = CloudLogging()
    for number in range(5000):
        server.write(str(number), BEGIN + number / 1000)
    cursor: Mapping[str, Any] = {}
    seen: list[str] = []
    while True:
        page = read_pages(server, [(JOB, cursor)])[0]
        seen += [line.text for line in page.lines]
        cursor = page.cursor
        if not page.more:
            break
    assert [int(text) for text in seen] == list(range(5000))
    assert server.calls == 5, "each request must return a thousand lines"


def test_without_budget_nothing_is_read() -> None:
    server = CloudLogging()
    server.write("one", BEGIN)
    reader = logs.LogReader(server, "https://logs", lambda _: Budget(0))  # type: ignore[arg-type]
    page = reader.read([logs.JobLog(JOB, {}, CREATED)], 1000)[0]
    assert (page.lines, page.wait, server.calls) == ((), 7.0, 0)


def test_a_search_stops_when_the_budget_is_used_up() -> None:
    server = CloudLogging()
    server.empty = 100
    reader = logs.LogReader(server, "https://logs", lambda _: Budget(2))  # type: ignore[arg-type]
    page = reader.read([logs.JobLog(JOB, {}, CREATED)], 1000)[0]
    assert (page.wait, server.calls, page.cursor["search"]["token"]) == (7.0, 2, "0")


def test_an_exceeded_quota_is_not_an_error() -> None:
    class Busy:
        def call(self, *_: Any, **__: Any) -> dict[str, Any]:
            raise BackendThrottledError("429")

    page = read_pages(Busy(), [(JOB, {})])[0]
    assert (page.lines, page.cursor, page.wait) == ((), {}, 20.0)


def test_the_search_range_of_a_quiet_job_stays_limited(clock: Callable[[float], None]) -> None:
    server = CloudLogging()
    server.write("one", BEGIN)
    _, cursor = read(server, {})
    later = BEGIN + 5 * logs.QUIET_SECONDS
    clock(later)
    _, cursor = read(server, cursor)
    assert cursor["since"] == rfc3339(later - logs.QUIET_SECONDS)
    server.write("late", later - logs.QUIET_SECONDS + 1)
    lines, _ = read(server, cursor)
    assert [line.text for line in lines] == ["late"]
