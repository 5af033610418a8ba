"""Tests that `mlengine jobs train` follows a job through outages of the services that it needs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from mlengine.backends import Submission
from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.jobs import cancel, outages
from mlengine.cli.jobs.follow import follow
from mlengine.core.errors import BackendUnavailableError
from mlengine.core.job import FailureCause, JobHandle, JobKey, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.jobs import deadlines, following
from mlengine.jobs.submission import Intent, Submitted, Submitter, cancelled_outside, ended_with_task
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from mlengine.web import actions
from tests.support import local_jobs

pytestmark = pytest.mark.integration


@dataclass
class Unavailable(MemoryBackend):
    """The first attempt is preempted, the second succeeds. The next ``outages`` calls of ``verb`` fail."""

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


@pytest.fixture
def overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treats a job that is QUEUED as having waited too long."""
    monkeypatch.setattr(deadlines, "max_wait_seconds", lambda *_: 1.0)
    monkeypatch.setattr(deadlines, "waits_too_long", lambda status, _: status.state is JobState.QUEUED)


def submit(storage: Storage, bucket: str, backend: MemoryBackend) -> Submitted:
    storage.write(f"{bucket}/t.tar.gz", local_jobs.sdist(""))
    spec = TrainingSpec("trainer.task", package_uris=(f"{bucket}/t.tar.gz",))
    intent = Intent(JobKey("mlengine train", "m_1", "submit"), "m", JobDir.of(bucket, "m", "m_1"), spec)
    return Submitter(storage, backend).submit(intent)


def run(
    storage: Storage,
    bucket: str,
    backend: Unavailable,
    cause: FailureCause = FailureCause.PREEMPTED,
    attempts: int = 3,
) -> int:
    """Submit a job and follow it."""
    submitted = submit(storage, bucket, backend)
    if backend.verb == "submit":
        backend.end(submitted.handle.name, JobState.FAILED, cause)
    return follow(backend, storage, Submitter(storage, backend, max_attempts=attempts), submitted)


def test_the_next_attempt_is_submitted_after_an_outage(
    storage: Storage, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = Unavailable(outages=3)
    assert run(storage, bucket, backend) == ExitCode.OK
    assert [job.submission.attempt for job in backend.jobs] == [1, 2]
    printed = capsys.readouterr()
    assert printed.err.count("the service does not respond; retrying in 0 s") == 3
    assert "attempt 2 resumes" in printed.out


@pytest.mark.usefixtures("overdue")
def test_a_job_that_exceeds_max_wait_seconds_is_cancelled_after_an_outage(storage: Storage, bucket: str) -> None:
    backend = Unavailable(verb="cancel", outages=2)
    assert run(storage, bucket, backend) == ExitCode.JOB_FAILED
    assert backend.live == []


def test_a_permanent_outage_is_an_error(storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(BackendUnavailableError, match="does not respond"):
        run(storage, bucket, Unavailable(outages=10**9))


@dataclass
class CancelsSlowly(Unavailable):
    """Reports a cancellation only three polls later. It has one fallback."""

    late: int = 0

    def next_fallback(self, current: Mapping[str, Any] | None, status: JobStatus | None) -> Mapping[str, Any] | None:
        overdue = status is not None and status.failure is not None and status.failure.cause is FailureCause.DEADLINE
        return {"number": 1, "region": "r2"} if overdue and current is None else None

    def cancel(self, handle: JobHandle) -> None:
        self.calls.append("cancel")
        self.late = 3

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        if self.late:
            self.late -= 1
            if not self.late:
                self.end(handles[0].name, JobState.CANCELLED, FailureCause.CANCELLED)
        return super().describe(handles)


@pytest.mark.usefixtures("overdue")
def test_a_job_that_exceeds_max_wait_seconds_is_cancelled_once(
    storage: Storage, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = CancelsSlowly(verb="none")
    assert run(storage, bucket, backend) == ExitCode.OK
    assert [job.submission.fallback for job in backend.jobs] == [None, {"number": 1, "region": "r2"}]
    assert backend.calls.count("cancel") == 1
    assert capsys.readouterr().out.count("exceeded max_wait_seconds") == 1


@dataclass
class StartsMeanwhile(CancelsSlowly):
    """The first cancellation fails and the job starts. Then a user cancels it."""

    def cancel(self, handle: JobHandle) -> None:
        self.jobs[0].state = JobState.RUNNING
        self._outage("cancel")

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        found = super().describe(handles)
        if found[0].state is JobState.RUNNING:
            self.end(handles[0].name, JobState.CANCELLED, FailureCause.CANCELLED)
        return found


@pytest.mark.usefixtures("overdue")
def test_a_users_cancellation_after_a_failed_one_is_final(storage: Storage, bucket: str) -> None:
    backend = StartsMeanwhile(verb="cancel", outages=1)
    assert run(storage, bucket, backend) == ExitCode.JOB_FAILED
    assert len(backend.jobs) == 1, "no job is submitted after the cancellation"
    submitter, handle = Submitter(storage, backend), backend.jobs[0].handle
    record, (status,) = submitter.record(JobDir(handle.job_dir)), backend.describe([handle])
    assert ended_with_task(record), "the reason of the earlier cancellation is recorded"
    assert not ended_with_task(record, status), "the task also attributes the cancellation to a user"


@dataclass
class CancelledByAPerson(CancelsSlowly):
    """A user cancels the job right after the poll in which it had waited too long."""

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        found = super().describe(handles)
        if found[0].state is JobState.QUEUED:
            self.jobs[0].state = JobState.CANCELLING
        elif found[0].state is JobState.CANCELLING:
            self.end(handles[0].name, JobState.CANCELLED, FailureCause.CANCELLED)
        return found


@pytest.mark.usefixtures("overdue")
def test_a_users_cancellation_is_not_reported_as_a_timeout(
    storage: Storage, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = CancelledByAPerson(verb="none")
    assert run(storage, bucket, backend) == ExitCode.JOB_FAILED
    assert len(backend.jobs) == 1
    assert "exceeded" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        (FailureCause.TRAINER, "m_1: FAILED: ended by trainer\n  What to do: read the last lines; correct the trainer"),
        (FailureCause.NO_QUOTA, "or other machines; then train under another job id\n"),
    ],
)
def test_a_failed_job_is_explained_on_the_command_line(
    storage: Storage, bucket: str, capsys: pytest.CaptureFixture[str], cause: FailureCause, text: str
) -> None:
    assert run(storage, bucket, Unavailable(), cause) == ExitCode.JOB_FAILED
    printed = capsys.readouterr().out
    assert text in printed
    assert "clear" not in printed


def test_a_job_without_attempts_left_is_explained_on_the_command_line(
    storage: Storage, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(storage, bucket, Unavailable(), FailureCause.LOST, attempts=1) == ExitCode.JOB_FAILED
    printed = capsys.readouterr().out
    assert "attempt 1 of 1" in printed
    assert "then train under another job id" in printed


@dataclass
class Started(Unavailable):
    """A job that starts during an outage, while the last state its follower has seen is waiting for machines."""

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


@pytest.mark.usefixtures("overdue")
def test_a_job_that_started_during_an_outage_is_not_cancelled(storage: Storage, bucket: str) -> None:
    backend = Started(verb="none")
    assert run(storage, bucket, backend) == ExitCode.OK
    assert backend.jobs[0].state is JobState.SUCCEEDED


def test_waiting_for_a_cancelled_job_survives_an_outage(
    storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = CancelsSlowly(verb="none")
    handle = backend.submit(Submission("k", "m_1", 1, f"{bucket}/m/m_1", TrainingSpec("trainer.task")))
    monkeypatch.setattr(cancel, "find_job", lambda _: (backend, handle))
    ask = backend.cancel

    def cancel_and_go_away(job: JobHandle) -> None:
        ask(job)
        backend.refuse = 3

    monkeypatch.setattr(backend, "cancel", cancel_and_go_away)
    assert cancel._cancel(argparse.Namespace(no_wait=False, by="ana", reason="")) == ExitCode.OK
    printed = capsys.readouterr()
    assert printed.out == "m_1: CANCELLED\n"
    assert printed.err.count("come back later; retrying") == 3


@pytest.mark.parametrize("why", ["wrong data", ""])
def test_a_cancellation_at_a_terminal_is_recorded(
    storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    backend = MemoryBackend()
    handle = submit(storage, bucket, backend).handle
    monkeypatch.setattr(cancel, "find_job", lambda _: (backend, handle))
    assert cancel._cancel(argparse.Namespace(no_wait=False, by="ana", reason=why)) == ExitCode.OK
    assert capsys.readouterr().err == ""
    record = Submitter(storage, backend).record(JobDir(handle.job_dir))
    reason = f": {why}" if why else ""
    expected = f"it was cancelled by ana{reason}; clear `submit` to train again"
    assert cancelled_outside(record, backend.describe([handle])[0]) == expected


def test_a_job_is_cancelled_even_if_that_cannot_be_recorded(
    storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = MemoryBackend()
    handle = submit(storage, bucket, backend).handle
    storage.write(JobDir(handle.job_dir).claim, b"?")
    monkeypatch.setattr(cancel, "find_job", lambda _: (backend, handle))
    assert cancel._cancel(argparse.Namespace(no_wait=False, by="ana", reason="")) == ExitCode.OK
    assert f"could not record in {handle.job_dir} who cancelled the job" in capsys.readouterr().err
    assert backend.jobs[0].state is JobState.CANCELLED


def test_the_error_after_an_outage_says_how_to_resume(
    storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outages, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(BackendUnavailableError):
        run(storage, bucket, Unavailable(outages=10**9))
    assert "--follow; to cancel it: mlengine jobs cancel gs://" in capsys.readouterr().err


@pytest.mark.usefixtures("overdue")
def test_a_recorded_user_cancellation_is_not_attributed_to_the_wait(storage: Storage, bucket: str) -> None:
    """The user used the page's button, and the service does not show the cancellation yet."""
    backend = CancelsSlowly(verb="none")
    handle = submit(storage, bucket, backend).handle
    submitter = Submitter(storage, backend)
    actions.cancel(storage, backend, JobDir(handle.job_dir), by="ana", why="wrong data")
    submitter.give_up_waiting(backend.describe([handle])[0])
    backend.end(handle.name, JobState.CANCELLED, FailureCause.CANCELLED)
    (status,) = backend.describe([handle])
    assert not submitter.falls_back(status)
    assert not ended_with_task(submitter.record(JobDir(handle.job_dir)), status)
