"""Tests what survives crashes on the local backend: launchers, submitters and all of a machine's jobs are killed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlengine.backends import Submission
from mlengine.backends.local import record
from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.local.queue import Queue
from mlengine.backends.local.record import Job, Stored
from mlengine.core.errors import BackendUnavailableError
from mlengine.core.job import FailureCause, JobHandle, JobState
from mlengine.runtime import json_files, processes
from mlengine.runtime.file_lock import FileLock, held
from mlengine.runtime.processes import Process
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration
Make = Callable[..., LocalBackend]
FOR_EVER = "say('training'); time.sleep(3600)"
SAVES = """
def save(*_):
    time.sleep(0.7)
    say('saved')
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
say('training')
time.sleep(3600)
"""
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say('training'); time.sleep(3600)"


def training(backend: LocalBackend, submission: Submission, replicas: int) -> JobHandle:
    """Submit a job and wait until all its replicas run."""
    handle = backend.submit(submission)
    local.until(lambda: sum("training" in text for text in local.texts(backend, handle)) == replicas, "training")
    return handle


def job_of(backend: LocalBackend, handle: JobHandle) -> Job:
    return backend._job(handle.name)


def starts(backend: LocalBackend, handle: JobHandle) -> int:
    return sum(" restart " in text for text in local.texts(backend, handle))


def test_killing_the_launcher_loses_the_job_and_leaves_no_process(make_backend: Make, actor: str, bucket: str) -> None:
    spec = local.spec(actor, worker=1, ps=1, args=local.acts(chief=DEAF, worker=SAVES, ps=FOR_EVER))
    backend = make_backend()
    handle = training(backend, local.submission(bucket, spec), 3)
    started = local.alive(backend, handle)
    assert len(started) == 3
    os.kill(local.launcher_pid(backend, handle), signal.SIGKILL)
    # Replicas get time to save. Until they have ended, the job is not lost: no other attempt may begin.
    ending = local.until(
        lambda: local.describe(backend, handle).detail.startswith("the launcher died; "), "the replicas are ending"
    )
    assert ending
    status = local.until_ended(backend, handle)
    assert "worker-0: saved" in local.texts(backend, handle)
    assert status.state is JobState.FAILED
    assert status.failure is not None
    assert status.failure.cause is FailureCause.LOST
    assert status.failure.cause.retryable
    assert not [process for process in started if process.alive()]
    # A second submission returns the same lost job: only the caller decides on attempt 2.
    assert backend.submit(local.submission(bucket, spec)) == handle
    assert backend.find("k" * 40) == [handle]
    assert local.describe(backend, handle) == status


def test_a_reboot_loses_the_job_and_keeps_its_files(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend()
    spec = local.spec(actor, ps=1, args=local.acts(chief=FOR_EVER, ps=FOR_EVER))
    handle = training(backend, local.submission(bucket, spec), 2)
    everyone = [*local.alive(backend, handle), Process.of(local.launcher_pid(backend, handle))]
    for process in reversed(everyone):
        assert process is not None
        process.signal(signal.SIGKILL)
    local.until(lambda: not any(process.alive() for process in everyone if process), "all processes have ended")
    # After a reboot, other processes have the recorded PIDs; they must not be killed.
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        state = json.loads(job_of(backend, handle).state_file.read_text())
        for replica in state["replicas"]:
            replica["process"] = {"pid": bystander.pid, "start": "another-boot:1"}
        json_files.write_json(job_of(backend, handle).state_file, state)
        status = make_backend().describe([handle])[0]
        assert status.failure is not None
        assert status.failure.cause is FailureCause.LOST
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert "chief-0: training" in local.texts(backend, handle)
    again = backend.submit(local.submission(bucket, local.spec(actor), attempt=2))
    assert local.until_ended(backend, again).state is JobState.SUCCEEDED
    assert backend.find("k" * 40) == [handle, again]


def test_a_poll_during_the_launchers_start_starts_no_second_launcher(
    make_backend: Make, actor: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job must run in the environment that submitted it, not in that of a process that polls it a moment later."""
    backend = make_backend()
    chief = "print('started by', os.environ['TF_STARTED_BY'])"
    monkeypatch.setenv("TF_STARTED_BY", "its submitter")
    handle = backend.submit(local.submission(bucket, local.spec(actor, args=local.acts(chief=chief))))
    assert held(job_of(backend, handle).lock_file), "the lock must be held before the launcher starts"
    monkeypatch.setenv("TF_STARTED_BY", "another process")
    while not local.describe(backend, handle).state.terminal:
        assert backend.find("k" * 40) == [handle]
    assert "chief-0: started by its submitter" in local.texts(backend, handle)
    assert starts(backend, handle) == 1


def test_a_launcher_killed_at_any_time_leaves_one_finished_job_and_no_process(
    make_backend: Make, actor: str, bucket: str
) -> None:
    """The kills are spread over the whole lifetime of a job: start, preparation, training, end."""
    backend = make_backend(max_concurrent_jobs=8, termination_grace_seconds=1.0)
    spec = local.spec(actor, worker=1, args=local.acts(chief="time.sleep(0.3)", worker=DEAF))
    handles = [backend.submit(local.submission(bucket, spec, key=f"{n:x}" * 40)) for n in range(8)]
    begun = time.monotonic()
    for number, handle in enumerate(handles):
        time.sleep(max(0.0, begun + number * 0.5 - time.monotonic()))
        pid = local.launcher_pid(backend, handle)
        if pid:
            os.kill(pid, signal.SIGKILL)
    job_states = []
    for handle in handles:
        if job_of(backend, handle).state() is None:
            backend.find(
                handle.name.partition(":")[2].rpartition("-")[0]
            )  # killed before it wrote a state: find() launches it again
        job_states.append(local.until_ended(backend, handle).state)
        assert not local.alive(backend, handle)
        replicas = [line.replica for line in local.lines(backend, handle) if " restart 0" in line.text]
        assert len(replicas) == len(set(replicas))
    assert JobState.FAILED in job_states
    assert set(job_states) <= {JobState.FAILED, JobState.SUCCEEDED}


def test_concurrent_identical_submissions_start_one_job(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend()
    spec = local.spec(actor, args=local.acts(chief="time.sleep(1)"))
    submissions = [local.submission(bucket, spec)] * 6
    with ThreadPoolExecutor(6) as pool:
        handles = set(
            pool.map(lambda it: LocalBackend(backend.state_dir, max_concurrent_jobs=2).submit(it), submissions)
        )
    assert len(handles) == 1
    handle = handles.pop()
    assert local.until_ended(backend, handle).state is JobState.SUCCEEDED
    assert backend.submit(submissions[0]) == handle
    assert starts(backend, handle) == 1
    local.until(lambda: not Queue(backend.state_dir).tickets(), "the queue is empty")


def test_an_interrupted_submission_is_completed(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend(max_concurrent_jobs=4)
    handles = []
    for step, key in (("folder", "a"), ("ticket", "b"), ("submission", "c"), ("submission", "d")):
        submission = local.submission(bucket, local.spec(actor), key=key * 40)
        job = Job(backend.state_dir / "jobs" / record.job_name(submission.key, 1))
        job.logs.mkdir(parents=True)
        if step != "folder":
            Queue(backend.state_dir).enter(job.name)
        if step == "submission":
            json_files.create_json(job.submission_file, Stored(submission, backend.settings, time.time()).to_json())
        else:
            # Before the commit point nothing was submitted, and nothing is found.
            assert backend.find(submission.key) == []
        handles += backend.find(submission.key) if key == "d" else [backend.submit(submission)]
    assert len(handles) == 4
    for handle in handles:
        assert local.until_ended(backend, handle).state is JobState.SUCCEEDED
        assert starts(backend, handle) == 1


def test_a_launcher_that_never_started_is_a_lost_job(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend()
    submission = local.submission(bucket, local.spec(actor))
    job = Job(backend.state_dir / "jobs" / record.job_name(submission.key, 1))
    job.logs.mkdir(parents=True)
    stored = Stored(submission, backend.settings, time.time() - 3600)
    json_files.create_json(job.submission_file, stored.to_json())
    status = local.describe(backend, stored.handle)
    assert status.failure is not None
    assert status.failure.cause is FailureCause.LOST
    # A late launcher does not start the job either.
    assert backend.submit(submission) == stored.handle
    assert local.describe(backend, stored.handle).state is JobState.FAILED
    assert starts(backend, stored.handle) == 0


def test_a_job_with_an_unreadable_state_is_lost(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend()
    handle = training(backend, local.submission(bucket, local.spec(actor, args=local.acts(chief=FOR_EVER))), 1)
    os.kill(local.launcher_pid(backend, handle), signal.SIGKILL)
    job_of(backend, handle).state_file.write_bytes(b"\0" * 100)
    status = local.until_ended(backend, handle)
    assert status.failure is not None
    assert status.failure.cause is FailureCause.LOST


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, if this user may create one."""
    folder = tmp_path / "small"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_fails_the_job_and_blocks_submissions(
    small_disk: Path, shared_environments: Path, actor: str, bucket: str
) -> None:
    (small_disk / "envs").symlink_to(shared_environments / "envs")
    backend = LocalBackend(small_disk, restart_backoff_seconds=0.1)
    chief = "while True: os.write(1, b'x' * 1023 + b'\\n')"
    handle, status = local.run(backend, bucket, local.spec(actor, args=local.acts(chief=chief)))
    assert status.state is JobState.FAILED
    assert status.failure is not None
    assert status.failure.replica == "chief-0"
    assert not local.alive(backend, handle)
    # The launcher frees some space at its end.
    local.until(lambda: not local.launcher_pid(backend, handle), "the launcher ends")
    with pytest.raises(OSError, match="No space"):
        (small_disk / "fill").write_bytes(b"x" * (2 << 20))
    with pytest.raises(BackendUnavailableError, match="free disk space"):
        backend.submit(local.submission(bucket, local.spec(actor), key="f" * 40))


def test_a_job_of_another_version_does_not_block_the_queue(make_backend: Make, actor: str, bucket: str) -> None:
    """The launcher of the old job has died, and its submission.json cannot be read."""
    backend = make_backend()
    old = training(backend, local.submission(bucket, local.spec(actor, args=local.acts(chief=FOR_EVER))), 1)
    file = job_of(backend, old).submission_file
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "spec": {**data["spec"], "module_of_another_version": 1}}))
    os.kill(local.launcher_pid(backend, old), signal.SIGKILL)
    new = backend.submit(local.submission(bucket, local.spec(actor), key="n" * 40))
    assert local.until_ended(backend, new).state is JobState.SUCCEEDED
    status = local.describe(backend, old)
    assert (status.state, local.alive(backend, old)) == (JobState.FAILED, [])
    assert status.failure is not None
    assert status.failure.cause is FailureCause.LOST
    assert "its submission.json cannot be read" in status.failure.message
    backend.cancel(old)


def test_a_setting_that_has_become_invalid_does_not_hide_a_job(make_backend: Make, actor: str, bucket: str) -> None:
    backend = make_backend()
    handle = local.submission(bucket, local.spec(actor))
    old = backend.submit(handle)
    local.until_ended(backend, old)
    job = job_of(backend, old)
    data = json.loads(job.submission_file.read_text())
    job.submission_file.write_text(json.dumps({**data, "settings": {**data["settings"], "max_restarts": "many"}}))
    assert backend.jobs() == []
    assert local.describe(backend, old).state is JobState.SUCCEEDED
    job.state_file.unlink()
    assert local.describe(backend, old).state in {JobState.FAILED, JobState.QUEUED, JobState.UNKNOWN}


def test_a_job_whose_directory_is_deleted_ends(make_backend: Make, actor: str, bucket: str) -> None:
    """Another attempt follows, and must not train at the same time."""
    backend = make_backend()
    handle = training(backend, local.submission(bucket, local.spec(actor, args=local.acts(chief=SAVES))), 1)
    launcher = Process.of(local.launcher_pid(backend, handle))
    assert launcher is not None
    job = job_of(backend, handle)
    shutil.rmtree(job.root)
    status = local.describe(backend, handle)
    assert status.state is JobState.UNKNOWN, "the job is lost only once all its processes have ended"
    assert "was deleted" in (status.detail or "")
    local.until(lambda: local.describe(backend, handle).state.terminal, "the job ends")
    assert processes.of_job(job.root) == []
    status = local.describe(backend, handle)
    assert status.failure is not None
    assert status.failure.cause is FailureCause.LOST
    local.until(lambda: not launcher.alive(), "the launcher ends")


def test_a_job_starts_while_its_state_is_read(
    make_backend: Make, actor: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the state may hold the file lock for a moment."""
    backend = make_backend()
    submission = local.submission(bucket, local.spec(actor))
    job = Job(backend.state_dir / "jobs" / record.job_name(submission.key, 1))
    original = backend._launch

    def launch(one: Job) -> None:
        lock = FileLock.take(job.lock_file)
        assert lock is not None
        threading.Timer(0.3, lock.give_back).start()
        original(one)

    monkeypatch.setattr(backend, "_launch", launch)
    handle = backend.submit(submission)
    assert local.until_ended(backend, handle).state is JobState.SUCCEEDED
    assert starts(backend, handle) == 1


def test_an_unwritable_state_directory_is_an_error_with_a_hint(
    tmp_path: Path, make_backend: Make, actor: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_backend()
    submission = local.submission(bucket, local.spec(actor))
    denied = PermissionError(errno.EACCES, "Permission denied", "submission.json")
    full = OSError(errno.ENOSPC, "No space left on device", "submission.json")
    for error, hint in ((denied, "owner and permissions"), (full, "free disk space")):

        def fail(_: Path, error: OSError = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(record, "read_json", fail)
            with pytest.raises(BackendUnavailableError) as caught:
                backend.submit(submission)
        assert hint in caught.value.hint
    handle = backend.submit(submission)
    with monkeypatch.context() as patch:
        patch.setattr(Job, "terminal", lambda job: fail(job.root))
        with pytest.raises(BackendUnavailableError, match="cannot be cancelled in"):
            backend.cancel(handle)
    local.until_ended(backend, handle)
