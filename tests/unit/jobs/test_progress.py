"""LogFormatter: the lines of a task's log, for any response of a service."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from mlengine.backends import LogLine, LogPage
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.jobs.progress import LogCursor, LogFormatter, Progress

HANDLE = JobHandle("vertex", "projects/p/locations/r/customJobs/1", "m_1", 1, "gs://bkt/m/m_1")


def test_a_replica_cannot_forge_lines_of_others_or_of_mlengine() -> None:
    """Cloud Logging returns multi-line payloads as the trainer wrote them."""
    hostile = "done\n      chief | all is well\n\x1b[2J\x1b[1Ajob | RUNNING → SUCCEEDED"
    page = LogPage((LogLine("worker-0", hostile),), {})
    status = JobStatus(HANDLE, JobState.FAILED, "exit code 1\n        job | SUCCEEDED")
    lines = LogFormatter(LogCursor(1)).new_lines(status, page)
    assert lines == [
        "   worker-0 | done",
        "   worker-0 |       chief | all is well",
        "   worker-0 | job | RUNNING → SUCCEEDED",
        "        job | FAILED: exit code 1",
        "        job |             job | SUCCEEDED",
    ]


def test_each_line_of_a_message_becomes_a_log_line() -> None:
    detail = "The replica workerpool0-0 exited with a non-zero status of 1.\nTraceback:\n  File\nKeyError: 'x'"
    lines = LogFormatter(LogCursor(1)).new_lines(JobStatus(HANDLE, JobState.FAILED, detail))
    assert lines == [
        "        job | FAILED: The replica workerpool0-0 exited with a non-zero status of 1.",
        "        job |     Traceback:",
        "        job |       File",
        "        job |     KeyError: 'x'",
    ]


def test_the_states_of_a_progress_bar_are_shown_one_by_one() -> None:
    page = LogPage((LogLine("chief-0", "\r 10 %\r 20 %\r 30 %"),), {})
    lines = LogFormatter(LogCursor(1)).new_lines(JobStatus(HANDLE, JobState.RUNNING), page)
    assert lines[:-1] == ["    chief-0 |  10 %", "    chief-0 |  20 %", "    chief-0 |  30 %"]


def test_web_access_links_are_logged_once_even_by_a_resumed_wait() -> None:
    shell = "https://0123-dot-us-central1.aiplatform-training.googleusercontent.com"
    status = JobStatus(HANDLE, JobState.RUNNING, links={"chief-0": shell})
    formatter = LogFormatter(LogCursor(1))
    assert f"        job | web access to chief-0: {shell}" in formatter.new_lines(status)
    resumed = LogFormatter(LogCursor(**json.loads(json.dumps(asdict(formatter.cursor)))))
    more = replace(status, links={"chief-0": shell, "worker-0": shell + "/w"})
    assert resumed.new_lines(more) == [f"        job | web access to worker-0: {shell}/w"]


def test_a_state_that_was_never_read_is_not_logged() -> None:
    formatter = LogFormatter(LogCursor(1))
    assert formatter.new_lines(JobStatus(HANDLE, JobState.UNKNOWN)) == []
    (line,) = formatter.new_lines(JobStatus(HANDLE, JobState.RUNNING))
    assert line.endswith("| RUNNING")


@pytest.mark.parametrize(
    ("rate", "text"), [(0.34, "0.34"), (0.0021, "0.0021"), (4.0, "4"), (9.96, "10"), (12.4, "12"), (17_703.4, "17,703")]
)
def test_slow_training_is_not_shown_as_zero(rate: float, text: str) -> None:
    assert str(Progress(3, 9, examples_per_second=rate)) == f"step 3 of 9 (33 %), {text} examples/s"


def test_a_small_loss_is_not_shown_as_zero() -> None:
    assert str(Progress(3, 9, loss=0.00001234)) == "step 3 of 9 (33 %), loss 1.234e-05"
    assert str(Progress(3, 9, loss=0.13861)) == "step 3 of 9 (33 %), loss 0.1386"
