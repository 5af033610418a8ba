"""Tests cancelling a job on the local backend, in every state and without its launcher."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from mlengine.backends.local import record
from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.local.record import Job, Stored
from mlengine.core.job import FailureCause, JobHandle, JobState
from mlengine.runtime import json_files
from mlengine.storage.client import Storage
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration
Make = Callable[..., LocalBackend]
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say('training'); time.sleep(3600)"
# A package whose build never ends.
ENDLESS = {"setup.py": "import time; print('building', flush=True); time.sleep(3600)"}


def assert_cancelled(backend: LocalBackend, handle: JobHandle) -> None:
    status = local.until_ended(backend, handle)
    assert status.state is JobState.CANCELLED
    assert status.failure is not None
    assert status.failure.cause is FailureCause.CANCELLED
    assert not local.alive(backend, handle)
    backend.cancel(handle)
    assert local.describe(backend, handle) == status


def test_cancel_a_running_job_with_a_replica_that_ignores_sigterm(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend(termination_grace_seconds=1.0)
    spec = local.spec(actor, worker=1, args=local.acts(chief=DEAF, worker=DEAF))
    handle = backend.submit(local.submission(bucket, spec))
    local.until(lambda: sum("training" in text for text in local.texts(backend, handle)) == 2, "training")
    backend.cancel(handle)
    assert local.describe(backend, handle).state is JobState.CANCELLING
    assert_cancelled(backend, handle)


def test_cancel_a_queued_job(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend(max_concurrent_jobs=1)
    first = backend.submit(local.submission(bucket, local.spec(actor, args=local.acts(chief=DEAF)), key="a" * 40))
    second = backend.submit(local.submission(bucket, local.spec(actor), key="b" * 40))
    local.until(lambda: "place 1" in local.describe(backend, second).detail, "the second waits")
    backend.cancel(second)
    assert_cancelled(backend, second)
    assert not [text for text in local.texts(backend, second) if text.startswith("chief-0")]
    backend.cancel(first)
    assert_cancelled(backend, first)


def test_cancel_a_job_while_its_environment_is_built(make_backend: Make, storage: Storage, bucket: str) -> None:
    backend = make_backend()
    uri = local.put(storage, bucket, local.sdist("", extra=ENDLESS))
    handle = backend.submit(local.submission(bucket, local.spec(uri)))
    local.until(lambda: any("building environment" in text for text in local.texts(backend, handle)), "the build")
    assert local.describe(backend, handle).state is JobState.PREPARING
    backend.cancel(handle)
    assert_cancelled(backend, handle)


def test_cancelling_a_finished_job_changes_nothing(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend()
    handle, status = local.run(backend, bucket, local.spec(actor))
    assert status.state is JobState.SUCCEEDED
    backend.cancel(handle)
    assert local.describe(backend, handle) == status


def test_cancel_a_job_whose_launcher_has_died(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend()
    handle = backend.submit(local.submission(bucket, local.spec(actor, args=local.acts(chief=DEAF))))
    local.until(lambda: "chief-0: training" in local.texts(backend, handle), "training")
    os.kill(local.launcher_pid(backend, handle), signal.SIGKILL)
    local.until(lambda: not local.launcher_pid(backend, handle), "the launcher has ended")
    assert local.alive(backend, handle)
    backend.cancel(handle)
    assert_cancelled(backend, handle)


def test_cancel_a_job_before_its_launcher_starts(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend()
    submission = local.submission(bucket, local.spec(actor))
    job = Job(backend.state_dir / "jobs" / record.job_name(submission.key, 1))
    job.logs.mkdir(parents=True)
    json_files.create_json(job.submission_file, Stored(submission, backend.settings, time.time()).to_json())
    handle = Stored(submission, backend.settings, 0.0).handle
    backend.cancel(handle)
    assert_cancelled(backend, handle)
    backend.submit(submission)
    assert_cancelled(backend, handle)


def test_cancelling_an_unknown_job_is_ignored(make_backend: Make) -> None:
    make_backend().cancel(JobHandle("local", "unknown-1", "job", 1, "gs://bbb/m/job"))
