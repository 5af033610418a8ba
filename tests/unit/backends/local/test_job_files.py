"""Files of old local jobs are removed, but never the records of a job, or logs that exist nowhere else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mlengine.backends.local.job_files import remove_old
from mlengine.backends.local.record import Job
from mlengine.core.job import JobState
from mlengine.runtime.file_lock import FileLock
from mlengine.runtime.json_files import write_json

RECORDS = [Job(Path()).lock_file.name, "state.json", "submission.json"]


def ended_job(
    state_dir: Path, name: str, days: float, *, state: JobState = JobState.FAILED, uploaded: bool = True
) -> Job:
    """A job that ended some days ago, with logs and a scratch directory."""
    job = Job(state_dir / "jobs" / name)
    for path in (job.log("chief-0"), job.scratch("chief-0") / "core", job.launcher_log, job.lock_file):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    write_json(job.submission_file, {})
    ended = time.time() - days * 86400 if state.terminal else None
    write_json(job.state_file, {"state": state.value, "detail": "", "ended": ended})
    if uploaded:
        job.uploaded_file.touch()
    return job


def files(job: Job) -> list[str]:
    return sorted(path.name for path in job.root.iterdir())


def test_files_of_jobs_that_ended_long_ago_are_removed(tmp_path: Path) -> None:
    old, recent = ended_job(tmp_path, "old-1", 31), ended_job(tmp_path, "recent-1", 29)
    running = ended_job(tmp_path, "running-1", 0, state=JobState.RUNNING)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").touch()
    (old.scratch("chief-0") / "link").symlink_to(mine)
    messages: list[str] = []
    assert remove_old(tmp_path, 30, messages.append) == ["old-1"]
    assert messages == ["removed the logs and scratch directories of 1 job: ended 30 days ago"]
    assert files(old) == sorted([*RECORDS, "uploaded"])
    assert files(recent) == files(running) == sorted([*RECORDS, "launcher.log", "logs", "uploaded", "work"])
    assert (mine / "file").exists(), "links must not be followed"
    assert remove_old(tmp_path, 30, messages.append) == []
    assert len(messages) == 1


def test_logs_that_were_not_uploaded_are_kept(tmp_path: Path) -> None:
    job = ended_job(tmp_path, "old-1", 31, uploaded=False)
    assert remove_old(tmp_path, 30) == ["old-1"]
    assert files(job) == sorted([*RECORDS, "launcher.log", "logs"])


def test_all_files_are_kept_with_0_days(tmp_path: Path) -> None:
    job = ended_job(tmp_path, "old-1", 4000)
    assert remove_old(tmp_path, 0) == []
    assert "work" in files(job)


def test_a_job_whose_launcher_is_running_is_left_alone(tmp_path: Path) -> None:
    job = ended_job(tmp_path, "old-1", 31)
    with FileLock.take(job.lock_file) or pytest.fail("the lock is taken"):
        assert remove_old(tmp_path, 30) == []
    assert remove_old(tmp_path, 30) == ["old-1"]


@pytest.mark.parametrize("content", ["", "{}", '{"state": "OTHER"}', '{"state": "FAILED", "ended": "soon"}', "[]"])
def test_a_job_whose_state_cannot_be_read_is_left_alone(tmp_path: Path, content: str) -> None:
    job = ended_job(tmp_path, "bad-1", 31)
    ended_job(tmp_path, "old-1", 31)
    job.state_file.write_text(content)
    assert remove_old(tmp_path, 30) == ["old-1"]
    assert "work" in files(job)
