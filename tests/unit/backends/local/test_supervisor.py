"""The outcome of a job whose replica fails."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from mlengine.backends import Submission
from mlengine.backends.local import supervisor
from mlengine.backends.local.outcome import Outcome
from mlengine.backends.local.record import Job, Stored
from mlengine.backends.local.settings import Settings
from mlengine.backends.local.supervisor import Supervisor
from mlengine.core.job import FailureCause
from mlengine.core.spec import Pool, Role, TrainingSpec


def run(state_dir: Path) -> Outcome:
    """Run a chief that ends with an error."""
    job = Job(state_dir / "jobs" / "key-1")
    job.root.mkdir(parents=True)
    spec = TrainingSpec("no_such_module", ("gs://bkt/p",), (), (Pool(Role.CHIEF, 1),))
    stored = Stored(Submission("key", "job", 1, "gs://bkt/m/job", spec), Settings.load(), time.time())
    environments = {Role.CHIEF: (Path(sys.executable), dict(os.environ))}
    return Supervisor(
        job, stored, environments, {}, lambda: None, lambda seconds, _: time.sleep(min(seconds, 0.02)), lambda *_: None
    ).run()


def test_an_error_of_the_trainer_is_its_own(tmp_path: Path) -> None:
    failure = run(tmp_path).failure
    assert failure is not None
    assert (failure.cause, failure.message) == (FailureCause.TRAINER, "chief-0 ended with an error, exit code 1")


def test_a_replica_that_fails_on_a_full_disk_is_no_error_of_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "is_full", lambda root: root == tmp_path / "jobs" / "key-1")
    failure = run(tmp_path).failure
    assert failure is not None
    assert failure.cause is FailureCause.SERVICE
    assert failure.message == f"chief-0 ended with an error, exit code 1; the disk of {tmp_path} is full"
    assert failure.exit_code == 1
