"""Tickets and positions in the queue. This process holds the locks instead of launchers."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlengine.backends.local.queue import START_SECONDS, Queue
from mlengine.backends.local.record import Job
from mlengine.runtime import json_files
from mlengine.runtime.file_lock import FileLock


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path)


def enter(queue: Queue, *names: str) -> dict[str, FileLock]:
    """Add jobs to the queue, with locks as if their launchers were running."""
    locks = {}
    for name in names:
        queue.enter(name)
        job = Job(queue.state_dir / "jobs" / name)
        lock = FileLock.take(job.lock_file)
        assert lock is not None
        locks[name] = lock
        json_files.write_json(job.state_file, {"state": "QUEUED"})
    return locks


def places(queue: Queue, capacity: int, *names: str) -> list[int]:
    def unexpected(job: Job) -> None:
        pytest.fail(f"{job.name} was treated as dead")

    return [queue.place(name, capacity, unexpected) for name in names]


def test_places_are_in_order_of_submission(queue: Queue) -> None:
    locks = enter(queue, "d-1", "a-1", "c-1", "b-1")
    assert places(queue, 1, *locks) == [0, 1, 2, 3]
    assert places(queue, 2, *locks) == [0, 0, 1, 2]
    assert places(queue, 9, *locks) == [0, 0, 0, 0]


def test_a_job_gets_one_ticket(queue: Queue) -> None:
    with ThreadPoolExecutor(8) as pool:
        tickets = list(pool.map(queue.enter, ["a-1", "b-1"] * 20))
    assert len({ticket.number for ticket in tickets}) == 2
    assert len(queue.tickets()) == 2


def test_other_files_in_the_folder_are_left_alone(queue: Queue) -> None:
    queue.enter("a-1")
    theirs = [queue.folder / name for name in ("2024-report.csv", "notes.txt", "0000000001")]
    for path in theirs:
        path.touch()
        os.utime(path, (0, 0))
    assert [ticket.job for ticket in queue.tickets()] == ["a-1"]
    queue.place("b-1", 1, lambda job: None)
    queue.leave("report.csv")
    assert all(path.exists() for path in theirs)


def test_a_job_that_leaves_frees_its_place(queue: Queue) -> None:
    locks = enter(queue, "a-1", "b-1", "c-1")
    queue.leave("a-1")
    queue.leave("a-1")
    assert places(queue, 1, "b-1", "c-1") == [0, 1]
    assert locks


def test_a_finished_job_frees_its_place_while_it_uploads_its_logs(queue: Queue) -> None:
    locks = enter(queue, "a-1", "b-1")
    json_files.write_json(Job(queue.state_dir / "jobs" / "a-1").state_file, {"state": "SUCCEEDED"})
    assert places(queue, 1, "b-1") == [0]
    assert locks


def test_dead_jobs_are_reaped_once_and_take_no_place(queue: Queue) -> None:
    locks = enter(queue, "a-1", "b-1")
    locks["a-1"].give_back()
    reaped: list[str] = []
    assert queue.place("b-1", 1, lambda job: reaped.append(job.name)) == 0
    assert queue.place("b-1", 1, lambda job: reaped.append(job.name)) == 0
    assert reaped == ["a-1"]


def test_a_starting_job_keeps_its_place_for_a_limited_time(queue: Queue) -> None:
    ticket = queue.enter("a-1")
    locks = enter(queue, "b-1")
    assert places(queue, 1, "b-1") == [1]
    late = time.time() - START_SECONDS - 1
    os.utime(ticket.path, (late, late))
    assert queue.place("b-1", 1, lambda _: None) == 0
    assert locks


def test_a_job_that_never_started_keeps_no_place_after_the_clock_was_set_back(queue: Queue) -> None:
    queue.enter("dead-1")
    queue.enter("next-1")
    year_ahead = time.time() + 365 * 86400
    os.utime(queue.tickets()[0].path, (year_ahead, year_ahead))
    assert queue.place("next-1", 1, lambda job: None) == 0


def test_other_files_are_not_read_as_tickets(queue: Queue) -> None:
    queue.enter("a-1")
    (queue.folder / "README").touch()
    assert [ticket.job for ticket in queue.tickets()] == ["a-1"]
