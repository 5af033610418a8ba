"""A backend whose jobs finish as soon as they are submitted, to measure the overhead of mlengine itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlengine.backends import LogPage, Submission
from mlengine.connections import connect_storage
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.core.layout import JobDir


class InstantBackend:
    """A :class:`~mlengine.backends.TrainingBackend` that writes a model of two bytes and keeps no state."""

    name = "instant"

    def submit(self, submission: Submission) -> JobHandle:
        connect_storage("google_cloud_default").write(JobDir(submission.job_dir).model + "weights.json", b"{}")
        name = f"{submission.key}-{submission.attempt}"
        return JobHandle(self.name, name, submission.job_id, submission.attempt, submission.job_dir)

    def find(self, key: str) -> list[JobHandle]:  # noqa: ARG002
        return []

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        return [JobStatus(handle, JobState.SUCCEEDED) for handle in handles]

    def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:  # noqa: ARG002
        return LogPage((), cursor)

    def cancel(self, handle: JobHandle) -> None:
        """Do nothing, because no job is running."""

    def console_url(self, handle: JobHandle) -> str | None:  # noqa: ARG002
        return None
