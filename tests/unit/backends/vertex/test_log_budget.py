"""The budget of log reads, which all readers on a machine share."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlengine.backends.vertex.log_budget import FIRST_PAUSE, LEARNED_SECONDS, RECOVERY_SECONDS, LogBudget

SERVER = "https://logging.example"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def budget(folder: Path, clock: Clock, limit: int | None = 30, project: str = "p") -> LogBudget:
    return LogBudget(SERVER, project, limit=limit, folder=folder, clock=clock)


def calls(reader: LogBudget, clock: Clock, seconds: float, *, urgent: bool = False) -> list[float]:
    """The times at which a reader calls that reads as often as the budget allows."""
    until, made = clock.now + seconds, []
    while clock.now < until:
        wait = reader.take(urgent=urgent)
        if wait:
            clock.now += wait
        else:
            made.append(clock.now)
    return made


def most_in_a_minute(made: list[float]) -> int:
    return max(sum(begin <= moment < begin + 60.0 for moment in made) for begin in made)


@settings(max_examples=20, deadline=None)
@given(limit=st.integers(4, 60), asks=st.lists(st.tuples(st.floats(0, 5), st.booleans()), min_size=50, max_size=300))
def test_no_minute_has_more_requests_than_the_limit(
    tmp_path_factory: pytest.TempPathFactory, limit: int, asks: list[tuple[float, bool]]
) -> None:
    clock, folder = Clock(), tmp_path_factory.mktemp("budget")
    made = []
    for pause, urgent in asks:
        clock.now += pause
        if not budget(folder, clock, limit).take(urgent=urgent):
            made.append(clock.now)
    assert most_in_a_minute(made) <= limit


@pytest.mark.parametrize("urgent", [False, True])
def test_most_of_the_budget_can_be_used(tmp_path: Path, urgent: bool) -> None:
    clock = Clock()
    made = calls(budget(tmp_path, clock), clock, 600.0, urgent=urgent)
    assert len(made) > 0.7 * 30 * 10
    assert most_in_a_minute(made) <= 30


def test_readers_share_the_budget_fairly(tmp_path: Path) -> None:
    clock = Clock()
    readers = [budget(tmp_path, clock) for _ in range(5)]
    due, made = [clock.now] * 5, [0] * 5
    until = clock.now + 600.0
    while min(due) < until:
        number = due.index(min(due))
        clock.now = max(clock.now, due[number])
        wait = readers[number].take()
        made[number] += not wait
        due[number] = clock.now + (wait or 0.05)
    assert sum(made) <= 300
    assert min(made) > sum(made) / 5 / 2, made


def test_each_project_has_its_own_budget(tmp_path: Path) -> None:
    clock = Clock()
    one, other = budget(tmp_path, clock), budget(tmp_path, clock, project="q")
    while not one.take():
        pass
    assert other.take() == 0.0


def test_last_lines_have_a_reserve(tmp_path: Path) -> None:
    clock = Clock()
    reader = budget(tmp_path, clock)
    while not reader.take():
        pass
    assert [reader.take(urgent=True) for _ in range(4)] == [0.0] * 4
    assert reader.take(urgent=True) > 0.0


def test_after_a_429_reading_pauses_and_resumes_at_half_the_rate(tmp_path: Path) -> None:
    clock = Clock()
    before = len(calls(budget(tmp_path, clock), clock, 240.0))
    wait = budget(tmp_path, clock).throttled()
    assert wait >= FIRST_PAUSE
    assert budget(tmp_path, clock).throttled() <= wait + 1.0, "the quota must be exceeded only once"
    assert calls(budget(tmp_path, clock), clock, FIRST_PAUSE, urgent=True) == []
    clock.now += wait
    after = len(calls(budget(tmp_path, clock), clock, 240.0))
    assert after == pytest.approx(before / 2, rel=0.15)
    clock.now += RECOVERY_SECONDS
    assert len(calls(budget(tmp_path, clock), clock, 240.0)) == pytest.approx(before, rel=0.1)


def test_a_retry_after_header_is_respected(tmp_path: Path) -> None:
    clock = Clock()
    assert budget(tmp_path, clock).throttled(42.0) == pytest.approx(42.0, abs=1.0)


def test_a_server_without_quota_is_not_limited_until_it_answers_429(tmp_path: Path) -> None:
    clock = Clock()
    reader = budget(tmp_path, clock, None)
    assert [reader.take() for _ in range(500)] == [0.0] * 500
    assert list(tmp_path.iterdir()) == []
    clock.now += budget(tmp_path, clock, None).throttled()
    assert most_in_a_minute(calls(reader, clock, 300.0)) <= 30
    clock.now += LEARNED_SECONDS
    assert [reader.take() for _ in range(500)] == [0.0] * 500


def test_a_clock_that_is_set_back_does_not_stop_the_readers(tmp_path: Path) -> None:
    clock = Clock()
    budget(tmp_path, clock).throttled()
    clock.now -= 86400.0
    assert budget(tmp_path, clock).take() == 0.0


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    clock = Clock()
    budget(tmp_path, clock).take()
    (file,) = tmp_path.iterdir()
    file.write_text('{"next_at": 1')
    assert budget(tmp_path, clock).take() == 0.0


def test_without_a_directory_each_process_has_its_own_budget(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "file"
    file.write_text("no directory")
    clock = Clock()
    one, other = budget(file / "x", clock), budget(file / "x", clock)
    made = 0
    while not one.take() or not other.take():
        made += 1
    assert made <= 2
    assert caplog.text.count("the budget of log reads is this process's own") == 1


@pytest.mark.parametrize(
    ("server", "configured", "limit"),
    [
        ("https://logging.googleapis.com", None, 30),
        ("https://logging.googleapis.com", "12", 12),
        ("http://127.0.0.1:9000", None, None),
        ("http://127.0.0.1:9000", "30", 30),
    ],
)
def test_the_setting_limits_log_requests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: str, configured: str | None, limit: int | None
) -> None:
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(tmp_path))
    if configured:
        monkeypatch.setenv("AIRFLOW__MLENGINE__VERTEX_LOG_READS_PER_MINUTE", configured)
    made = LogBudget.of(server, "p")
    assert made._limit == limit
    made.take()
    assert (tmp_path / "log-reads").exists() == (limit is not None)


def _reads(folder: Path, count: multiprocessing.Value) -> None:  # type: ignore[valid-type]
    reader = LogBudget(SERVER, "p", limit=60, folder=folder)
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        if not reader.take():
            with count.get_lock():  # type: ignore[attr-defined]
                count.value += 1  # type: ignore[attr-defined]


def test_processes_share_the_budget(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    count = context.Value("i", 0)
    readers = [context.Process(target=_reads, args=(tmp_path, count)) for _ in range(4)]
    for one in readers:
        one.start()
    for one in readers:
        one.join()
    # 48 calls per minute with bursts of two, for two seconds.
    assert 2 <= count.value <= 5
