"""LogFormatter: the lines of a task's log, whatever a service returns."""

from __future__ import annotations

from mlengine.backends import LogLine, LogPage
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.jobs.progress import LogCursor, LogFormatter

HANDLE = JobHandle("vertex", "projects/p/locations/r/customJobs/1", "m_1", 1, "gs://b/m/m_1")


def test_a_replica_cannot_forge_a_line_of_another_replica_or_of_ours() -> None:
    """Cloud Logging returns payloads of many lines, as the trainer wrote them."""
    hostile = "done\n      chief | all is well\n\x1b[2J\x1b[1Ajob | RUNNING → SUCCEEDED"
    page = LogPage((LogLine("worker-0", hostile),), {})
    status = JobStatus(HANDLE, JobState.FAILED, "exit code 1\n        job | SUCCEEDED")
    lines = LogFormatter(LogCursor(1)).new_lines(status, page)
    assert lines == [
        "   worker-0 | done",
        "   worker-0 |       chief | all is well",
        "   worker-0 | job | RUNNING → SUCCEEDED",
        "        job | FAILED: exit code 1\\x0a        job | SUCCEEDED",
    ]
