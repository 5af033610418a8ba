"""The lines in the log of a job: those of the service, of the replicas, and those stored by an earlier version."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends import LogLine, LogPage
from mlengine.core.errors import EmulatorError
from mlengine.core.job import JobHandle, JobState
from mlengine.emulator.journal import Journal
from mlengine.emulator.log_entries import all_entries
from mlengine.emulator.records import MLENGINE, Record
from mlengine.testing.backend import MemoryBackend
from tests.unit.emulator.test_engine import record


@dataclass
class LoggingBackend(MemoryBackend):
    """A backend whose jobs log lines that the test specifies."""

    written: list[LogLine] = field(default_factory=list)

    def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:
        del handle
        begin = cursor.get("at", 0)
        lines = tuple(self.written[begin : begin + limit])
        end = begin + len(lines)
        return LogPage(lines, {"at": end}, end < len(self.written))


_PROVISIONING = (
    "Vertex AI is provisioning job running framework. First time usage might take couple of minutes,"
    " and subsequent runs can be much faster."
)
HANDLE = JobHandle("memory", "job-1", "1", 1, "gs://bkt/j")


@pytest.fixture
def backend() -> LoggingBackend:
    return LoggingBackend()


@pytest.fixture
def journal(backend: LoggingBackend, tmp_path: Path) -> Journal:
    return Journal(backend, tmp_path)


def logged(journal: Journal, job: Record) -> list[tuple[str, str, str]]:
    return [
        (entry["severity"], entry["resource"]["labels"]["task_name"], entry["jsonPayload"]["message"])
        for entry in all_entries(journal, job)
    ]


def texts(journal: Journal, job: Record) -> list[str]:
    return [text for _, _, text in logged(journal, job)]


def test_the_service_logs_each_stage_of_a_vertex_ai_job_once(journal: Journal, backend: LoggingBackend) -> None:
    job = replace(record(), notes=("a note",))
    begin = [
        "a note",
        "Waiting for job to be provisioned.",
        _PROVISIONING,
        "Vertex AI is setting up this job.",
        "Waiting for training program to start.",
    ]
    assert texts(journal, job) == begin
    preparing = replace(job, handle=HANDLE, state=JobState.PREPARING)
    assert texts(journal, preparing)[5:] == ["Job is preparing."]
    running = replace(preparing, state=JobState.RUNNING, started=1.0)
    assert texts(journal, running)[6:] == ["Job is running."]
    backend.written += [LogLine("chief-0", "out"), LogLine("worker-1", "err", stderr=True)]
    assert logged(journal, running)[7:] == [("INFO", "workerpool0-0", "out"), ("ERROR", "workerpool1-1", "err")]
    done = replace(running, state=JobState.SUCCEEDED, ended=2.0)
    end = [
        ("INFO", "service", "Finished tearing down training program."),
        ("INFO", "service", "Job completed successfully."),
    ]
    assert logged(journal, done)[9:] == end
    assert logged(journal, done)[9:] == end


def test_a_quick_job_has_all_stages_and_its_error(journal: Journal, backend: LoggingBackend) -> None:
    backend.written.append(LogLine("chief-0", "out"))
    error = {"code": 3, "message": "The replica workerpool0-0 exited with a non-zero status of 1."}
    job = replace(record(), handle=HANDLE, state=JobState.FAILED, started=1.0, ended=2.0, error=error)
    assert logged(journal, job)[4:] == [
        ("INFO", "service", "Job is preparing."),
        ("INFO", "service", "Job is running."),
        ("INFO", "workerpool0-0", "out"),
        ("ERROR", "service", error["message"]),
        ("INFO", "service", "Finished tearing down training program."),
        ("INFO", "service", "Job failed."),
    ]


def test_a_job_that_never_ran_says_so(journal: Journal) -> None:
    job = replace(record(), state=JobState.CANCELLED, ended=2.0, error={"code": 1, "message": "CANCELED"})
    assert texts(journal, job)[-1] == "Waiting for training program to start."
    assert texts(journal, replace(record("2"), stuck=True))[-1] == "Job is preparing."


def test_a_job_that_starts_again_has_the_lines_of_both_starts(journal: Journal, backend: LoggingBackend) -> None:
    backend.written.append(LogLine("chief-0", "first"))
    job = replace(record(), handle=HANDLE, state=JobState.RUNNING, started=1.0)
    journal.start_again(job)
    preparing = replace(job, handle=None, state=JobState.PREPARING)
    assert texts(journal, preparing)[6:] == ["first", "Job is preparing."]
    # A thread may have read the record before the restart.
    assert texts(journal, replace(job, state=JobState.PREPARING))[7:] == ["Job is preparing."]
    backend.written[:] = [LogLine("chief-0", "second")]
    job = replace(job, handle=replace(HANDLE, name="job-2"))
    assert texts(journal, job)[7:] == ["Job is preparing.", "Job is running.", "second"]


def test_an_ml_engine_job_has_the_messages_of_ml_engine(journal: Journal) -> None:
    job = replace(record("census_1", MLENGINE), state=JobState.RUNNING, started=1.0)
    assert texts(journal, job) == [
        "Validating job requirements...",
        "Job creation request has been successfully validated.",
        "Job census_1 is queued.",
        "Waiting for job to be provisioned.",
        "Waiting for training program to start.",
    ]


def test_jobs_with_similar_names_have_different_logs(journal: Journal) -> None:
    """With hyphens between project, region and id, ``p-r``/``x`` and ``p``/``r-x`` would have the same name."""
    one = replace(record("1"), project="p-r", region="x")
    other = replace(record("1"), project="p", region="r-x")
    journal.write(one, "one")
    journal.write(other, "other")
    assert texts(journal, one)[0] == "one"
    assert texts(journal, other)[0] == "other"


def test_text_that_utf_8_cannot_encode_is_logged(journal: Journal, backend: LoggingBackend) -> None:
    backend.written.append(LogLine("chief-0", "Größe \ud800"))
    job = replace(record(), handle=HANDLE, state=JobState.RUNNING, started=1.0)
    assert texts(journal, job)[-1] == "Größe ?"


def test_collecting_stops_after_a_time_limit_and_resumes(journal: Journal, backend: LoggingBackend) -> None:
    backend.written += [LogLine("chief-0", str(number)) for number in range(12_000)]
    job = replace(record(), handle=HANDLE, state=JobState.RUNNING, started=1.0)
    assert [journal.collect(job, 0.0) for _ in range(3)] == [False, False, True]
    assert texts(journal, job)[6:] == [str(number) for number in range(12_000)]


def test_a_page_does_not_wait_for_another_thread_that_collects(journal: Journal, backend: LoggingBackend) -> None:
    reading, continue_reading = threading.Event(), threading.Event()
    read = backend.logs

    def slow(handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:
        reading.set()
        assert continue_reading.wait(60)
        return read(handle, cursor, limit)

    backend.written.append(LogLine("chief-0", "out"))
    backend.logs = slow  # type: ignore[method-assign]
    job = replace(record(), handle=HANDLE, state=JobState.RUNNING, started=1.0)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(journal.collect, job)
        assert reading.wait(60)
        assert journal.collect(job, 0.01) is False
        continue_reading.set()
        assert first.result(60) is True
    assert journal.collect(job, 0.01) is True
    assert texts(journal, job)[6:] == ["out"]


def former(place: int, text: str) -> dict[str, Any]:
    """An entry as written by the version that preceded the log store."""
    return {
        "logName": "projects/p/logs/workerpool0-0",
        "resource": {"type": "ml_job", "labels": {"job_id": "1", "project_id": "p", "task_name": "workerpool0-0"}},
        "timestamp": "2026-11-23T14:00:00.500000Z",
        "severity": "INFO" if place else "ERROR",
        "insertId": f"{place:012d}",
        "labels": {"ml.googleapis.com/task_name": "workerpool0-0"},
        "jsonPayload": {"message": text},
    }


def test_the_files_of_an_earlier_version_are_moved_to_the_store(
    journal: Journal, backend: LoggingBackend, tmp_path: Path
) -> None:
    path = tmp_path / "vertex-p-r-1.jsonl"
    batches = [
        {"cursor": {"at": 1}, "entries": [former(0, "1")]},
        {"cursor": {"at": 3}, "entries": [former(1, "2\u2028x"), former(2, "3")]},
    ]
    path.write_text("".join(json.dumps(batch) + "\n" for batch in batches) + '{"cursor": {"at": 4}, "entr', "utf-8")
    backend.written += [LogLine("chief-0", text) for text in ("1", "2", "3", "4")]
    job = replace(record(), handle=HANDLE, state=JobState.RUNNING, started=1.0)
    found = all_entries(journal, job)
    assert [entry["jsonPayload"]["message"] for entry in found] == ["1", "2\u2028x", "3", "4"]
    kept = [{name: value for name, value in entry.items() if name != "receiveTimestamp"} for entry in found]
    assert kept[:3] == [former(0, "1"), former(1, "2\u2028x"), former(2, "3")]
    assert found[3]["insertId"] == f"{3:012d}"
    assert not path.exists()


def test_a_file_that_cannot_be_moved_is_an_error(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "vertex-p-r-1.jsonl"
    path.write_text('{"cursor": {}, "entries": [{}]}\n')
    with pytest.raises(EmulatorError, match="cannot read the log file") as refused:
        journal.collect(record())
    assert "another version wrote it" in refused.value.hint
    assert path.exists()
