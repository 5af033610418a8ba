"""`mlengine jobs train` follows a job through outages of the services that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from mlengine.backends import Submission
from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.jobs import follow as module
from mlengine.cli.jobs.follow import follow
from mlengine.core.errors import BackendUnavailableError
from mlengine.core.job import FailureCause, JobHandle, JobKey, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.jobs import deadlines, following
from mlengine.jobs.submission import Intent, Submitter
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from tests.support import local_jobs

pytestmark = pytest.mark.integration


@dataclass
class Unavailable(MemoryBackend):
    """The first attempt is preempted, the second succeeds. ``outages``: how many calls of a verb fail from then on."""

    verb: str = "submit"
    outages: int = 0

    def submit(self, submission: Submission) -> JobHandle:
        if submission.attempt > 1:
            self._outage("submit")
        handle = super().submit(submission)
        if submission.attempt > 1:
            self.end(handle.name, JobState.SUCCEEDED)
        return handle

    def cancel(self, handle: JobHandle) -> None:
        self._outage("cancel")
        super().cancel(handle)

    def _outage(self, verb: str) -> None:
        if verb == self.verb and self.outages:
            self.outages -= 1
            raise BackendUnavailableError("the service does not respond")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LONGEST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)


def run(storage: Storage, bucket: str, backend: Unavailable) -> int:
    """Submit a job, and follow it."""
    storage.write(f"{bucket}/t.tar.gz", local_jobs.sdist(""))
    submitter = Submitter(storage, backend)
    spec = TrainingSpec("trainer.task", package_uris=(f"{bucket}/t.tar.gz",))
    intent = Intent(JobKey("d", "r", "submit"), "m", JobDir.of(bucket, "m", "m_1"), spec)
    submitted = submitter.submit(intent)
    if backend.verb == "submit":
        backend.end(submitted.handle.name, JobState.FAILED, FailureCause.PREEMPTED)
    return follow(backend, storage, submitter, submitted)


def test_the_next_attempt_is_submitted_after_an_outage(
    storage: Storage, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = Unavailable(outages=3)
    assert run(storage, bucket, backend) == ExitCode.OK
    assert [job.submission.attempt for job in backend.jobs] == [1, 2]
    printed = capsys.readouterr()
    assert printed.err.count("the service does not respond; retrying in 0 s") == 3
    assert "attempt 2 resumes" in printed.out


def test_a_job_that_waits_too_long_is_cancelled_after_an_outage(
    storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "max_wait_seconds", lambda *_: 1.0)
    monkeypatch.setattr(deadlines, "waits_too_long", _waits_too_long)
    backend = Unavailable(verb="cancel", outages=2)
    assert run(storage, bucket, backend) == ExitCode.JOB_FAILED
    assert backend.live == []


def _waits_too_long(status: JobStatus, limit: float | None) -> bool:
    return limit is not None and status.state is JobState.QUEUED


def test_an_outage_without_end_is_an_error(storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.05)
    with pytest.raises(BackendUnavailableError, match="does not respond"):
        run(storage, bucket, Unavailable(outages=10**9))


@dataclass
class Started(Unavailable):
    """A job that starts during an outage, while its follower knows only that it waits for machines."""

    read_while_running: int = 0

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        if self.outages:
            self.outages -= 1
            self.jobs[0].state = JobState.RUNNING
            raise BackendUnavailableError("the service does not respond")
        if self.jobs[0].state is JobState.RUNNING:
            self.read_while_running += 1
            if self.read_while_running > 2:
                self.end(self.jobs[0].handle.name, JobState.SUCCEEDED)
        else:
            self.outages = 3
        return super().describe(handles)


def test_a_job_that_has_started_during_an_outage_is_not_cancelled(
    storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "max_wait_seconds", lambda *_: 1.0)
    monkeypatch.setattr(deadlines, "waits_too_long", _waits_too_long)
    backend = Started(verb="none")
    assert run(storage, bucket, backend) == ExitCode.OK
    assert backend.jobs[0].state is JobState.SUCCEEDED
