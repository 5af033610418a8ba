"""A job whose launcher has died is ended, also after the clock was set back."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mlengine.backends import Submission
from mlengine.backends.local.reconcile import reconcile
from mlengine.backends.local.record import Job, Stored
from mlengine.backends.local.settings import Settings
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.runtime import json_files
from mlengine.runtime.env_allowlist import MARK


def submitted(state_dir: Path, created: float) -> Job:
    """A job without a launcher."""
    job = Job(state_dir / "jobs" / "key-1")
    job.root.mkdir(parents=True)
    spec = TrainingSpec("tiny.task", ("gs://bkt/p",), (), (Pool(Role.CHIEF, 1),))
    stored = Stored(Submission("key", "job", 1, "gs://bkt/m/job", spec), Settings.load(), created)
    json_files.create_json(job.submission_file, stored.to_json())
    return job


@pytest.mark.parametrize("days", [-1, 365])
def test_a_job_that_never_started_is_lost(tmp_path: Path, days: int) -> None:
    state = reconcile(submitted(tmp_path, time.time() + days * 86400)) or {}
    assert (state.get("state"), state.get("detail")) == ("FAILED", "the launcher never started")


@pytest.mark.parametrize("seconds", [-1, 1])
def test_a_job_may_still_start(tmp_path: Path, seconds: int) -> None:
    assert reconcile(submitted(tmp_path, time.time() + seconds)) is None


def test_processes_that_ignore_sigterm_are_killed(tmp_path: Path) -> None:
    job = submitted(tmp_path, time.time())
    json_files.write_json(job.state_file, {"state": "RUNNING", "detail": ""})
    deaf = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    with subprocess.Popen(["sh", "-c", deaf], env={**os.environ, MARK: str(job.root)}, stdout=subprocess.PIPE) as left:
        try:
            assert left.stdout is not None
            assert left.stdout.readline() == b"up\n"
            assert "are being ended" in (reconcile(job) or {})["detail"]
            year_ahead = time.time() + 365 * 86400
            os.utime(job.orphans_file, (year_ahead, year_ahead))
            assert (reconcile(job) or {})["state"] == "FAILED"
            assert left.wait(10) == -signal.SIGKILL
        finally:
            left.kill()
