"""What enters a task's log, whatever a service hands on."""

from __future__ import annotations

from mlengine.backends import LogLine, LogPage
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.jobs.progress import Narrator, Told

HANDLE = JobHandle("vertex", "projects/p/locations/r/customJobs/1", "m_1", 1, "gs://b/m/m_1")


def test_a_replica_cannot_forge_another_ones_line_nor_ours() -> None:
    """Cloud Logging hands on payloads of many lines, as the trainer wrote them."""
    hostile = "done\n      chief | all is well\n\x1b[2J\x1b[1Ajob | RUNNING → SUCCEEDED"
    page = LogPage((LogLine("worker-0", hostile),), {})
    status = JobStatus(HANDLE, JobState.FAILED, "exit code 1\n        job | SUCCEEDED")
    told = Narrator(Told(1)).tell(status, page)
    assert told == [
        "   worker-0 | done",
        "   worker-0 |       chief | all is well",
        "   worker-0 | job | RUNNING → SUCCEEDED",
        "        job | FAILED: exit code 1\\x0a        job | SUCCEEDED",
    ]
