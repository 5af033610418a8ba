"""Tests the saved cursor of a job's log. The job's own code can write to the job dir and modify the cursor."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlengine.core.job import JobHandle
from mlengine.core.layout import JobDir
from mlengine.jobs.progress import LogCursor, read_cursor, write_cursor
from mlengine.storage.client import Storage

pytestmark = pytest.mark.integration


@pytest.fixture
def handle(bucket: str) -> JobHandle:
    return JobHandle("memory", "job-1", "m_1", 2, f"{bucket}/m/m_1")


def test_a_cursor_is_read_as_it_was_saved(storage: Storage, handle: JobHandle) -> None:
    cursor = LogCursor(2, {"chief-0": 17}, "RUNNING", "the chief runs", 5, True, ["http://127.0.0.1:1"])
    write_cursor(storage, handle, cursor)
    assert read_cursor(storage, handle) == cursor


@pytest.mark.parametrize(
    "damage",
    [
        {"attempt": "2"},
        {"attempt": True},
        {"logs": ["chief-0"]},
        {"state": None},
        {"detail": {}},
        {"step": "5"},
        {"open": 1},
        {"links": "http"},
        {"links": [1]},
        {"another": 1},
    ],
    ids=str,
)
def test_a_damaged_cursor_is_ignored(storage: Storage, handle: JobHandle, damage: dict[str, Any]) -> None:
    storage.write(JobDir(handle.job_dir).cursor, json.dumps({"attempt": 2, **damage}).encode())
    assert read_cursor(storage, handle) == LogCursor(2)


def test_a_too_deeply_nested_cursor_is_ignored(storage: Storage, handle: JobHandle) -> None:
    storage.write(JobDir(handle.job_dir).cursor, b"[" * 200_000)
    assert read_cursor(storage, handle) == LogCursor(2)
