"""The local backend: jobs as processes on this machine."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlengine
from mlengine.backends import LogPage, Submission
from mlengine.backends.cloud_variables import located
from mlengine.backends.local import accelerators, gpus, host, logs
from mlengine.backends.local.queue import Queue
from mlengine.backends.local.reconcile import reconcile
from mlengine.backends.local.record import Job, Stored, job_name, key_name
from mlengine.backends.local.settings import Settings
from mlengine.backends.submission_checks import check_submission
from mlengine.core.errors import BackendError, BackendUnavailableError
from mlengine.core.job import Failure, FailureCause, JobHandle, JobState, JobStatus
from mlengine.core.job_file import tiers
from mlengine.core.spec import Role, TrainingSpec
from mlengine.runtime import env_allowlist, interpreters, json_files, processes
from mlengine.runtime.file_lock import FileLock, held
from mlengine.runtime.processes import Process
from mlengine.runtime.state_dir import disk_is_full
from mlengine.runtime.state_dir import state_dir as resolve_state_dir

_START_SECONDS = 60.0
_LOCK_SECONDS = 5.0
_LOCK_PAUSE = 0.1
_FOLDER = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]{0,200}")  # names come from job.json, which any trainer can write


class LocalBackend:
    """Runs jobs on this machine. Each job has a directory in the state directory and a detached launcher process.

    Packages, checkpoints and models are read from and written to the bucket, as in the cloud. The credentials are the
    application default credentials of the submitting process (or ``STORAGE_EMULATOR_HOST``), not those of an Airflow
    connection.

    :param state_dir: see :func:`mlengine.runtime.state_dir.state_dir`; must be on a local disk.
    :param given: fields of :class:`Settings`. All other fields are read from :mod:`mlengine.settings`.
    """

    name = "local"

    def __init__(self, state_dir: str | Path | None = None, **given: Any) -> None:
        self.state_dir = resolve_state_dir(state_dir)
        self.settings = Settings.load(**given)
        self._separate_stderr = False

    def submit(self, submission: Submission) -> JobHandle:
        """Start the attempt, once. A call completes a submission that an earlier call left unfinished.

        :raises BackendError: the spec cannot run on this machine, as when it requests more GPUs than there are.
        :raises BackendUnavailableError: the state directory cannot be written, or no process can be started.
        """
        check_submission(submission)
        job = self._job(job_name(submission.key, submission.attempt))
        with _accessible(f"{submission.job_id} cannot be written to {job.root}"):
            stored = job.submission()
            if stored is None:
                if gpus.needed(submission.spec):
                    gpus.check(submission.job_id, submission.spec, self._gpus())
                stored = self._store(job, submission)
            self._launch(job)
        return stored.handle

    def find(self, key: str) -> list[JobHandle]:
        """All attempts of ``key``, oldest first.

        Starts the launcher of an attempt whose submitter died before it could.

        :raises BackendUnavailableError: the state directory cannot be read.
        """
        prefix = f"{key_name(key)}-"
        handles = []
        with _accessible(f"the jobs in {self.state_dir} cannot be read"):
            numbers = [name[len(prefix) :] for name in self._folders() if name.startswith(prefix)]
            for number in sorted(int(number) for number in numbers if number.isdigit()):
                job = self._job(job_name(key, number))
                stored = job.submission()
                if stored is not None:
                    self._launch(job)
                    handles.append(stored.handle)
        return handles

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        """The states of the jobs, read from each job's state file and its file lock."""
        return [self._describe_safely(handle) for handle in handles]

    def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:
        with _accessible(f"the logs of job {handle.job_id} cannot be read in {self.state_dir}"):
            if self.elsewhere(handle):
                return LogPage((), cursor)
            job = self._job(handle.name)
            ended = self._describe_safely(handle).state.terminal
            return logs.page(job, cursor, limit, ended=ended)

    def cancel(self, handle: JobHandle) -> None:
        """Ask the job's launcher to cancel the job. If the launcher has died, end the processes that it left.

        :raises BackendUnavailableError: the job runs on another host, or the state directory cannot be written.
        """
        with _accessible(f"job {handle.job_id} cannot be cancelled in {self.state_dir}"):
            self._cancel(handle)

    def _cancel(self, handle: JobHandle) -> None:
        if other := self.elsewhere(handle):
            raise BackendUnavailableError(
                f"job {handle.job_id} runs on host {other}, and cannot be cancelled from {self.host()}",
                hint=f"on {other}, run: mlengine jobs cancel {handle.job_id}",
            )
        job = self._job(handle.name)
        if not job.submission_file.exists() or job.terminal():
            return
        job.cancel_file.touch()
        if not held(job.lock_file):
            reconcile(job)

    def host(self) -> str:
        """See :class:`mlengine.backends.RunsOnHost`."""
        return host.here(self.state_dir)

    def elsewhere(self, handle: JobHandle) -> str | None:
        """See :class:`mlengine.backends.RunsOnHost`."""
        where, _ = host.split(handle.name)
        if not where or where == self.host() or self._job(handle.name).root.is_dir():
            return None
        return where

    def console_url(self, handle: JobHandle) -> str | None:
        """The ``file:`` URL of the job's directory."""
        root = self._job(handle.name).root
        with contextlib.suppress(OSError):
            return root.as_uri() if root.is_dir() else None
        return None

    def cap(self, spec: TrainingSpec) -> tuple[TrainingSpec, list[str]]:
        """The cluster reduced to this machine's limits, and one message for each reduction.

        Accelerators are removed if this machine has none; if it has some, their number is not reduced.

        :raises BackendError: the machine's GPUs are unknown.
        """
        limits = {
            Role.WORKER: ("local_max_workers", self.settings.max_workers),
            Role.PS: ("local_max_ps", self.settings.max_ps),
            Role.EVALUATOR: ("local_max_evaluators", self.settings.max_evaluators),
        }
        counts, words = {}, []
        for role, (setting, most) in limits.items():
            asked = spec.count(role)
            if asked > most:
                counts[role] = most
                words.append(f"{role.value}: {asked} requested, {most} will run ({setting}={most})")
        spec = spec.with_counts(counts) if counts else spec
        kinds = {kind for kind, count in map(tiers.accelerators, spec.pools) if count}
        if not kinds:
            return spec, words
        # The driver is not queried for a job that requests no NVIDIA GPUs.
        found = self._gpus() if any(kind.startswith("NVIDIA_") for kind in kinds) else []
        spec, notes = accelerators.adapted(spec, found)
        return spec, words + notes

    def end_replica(self, handle: JobHandle, replica: str) -> bool:
        """Send SIGTERM to one replica, as a preempted host does. Return ``False`` if the replica is not running."""
        for known in (self._job(handle.name).state() or {}).get("replicas", ()):
            if known["replica"] == replica and known["process"] is not None:
                process = Process.from_json(known["process"])
                if process.alive():
                    process.signal(signal.SIGTERM)
                    return True
        return False

    def separate_stderr(self) -> None:
        """See :class:`mlengine.backends.SeparatesStderr`."""
        self._separate_stderr = True

    def use_python(self, version: str) -> None:
        """See :class:`mlengine.backends.ChoosesPython`: an interpreter that uv finds on this machine."""
        self.settings = replace(self.settings, python_path=interpreters.find(version))

    def python_of(self, spec: TrainingSpec) -> str | None:  # noqa: ARG002
        """See :class:`mlengine.backends.KnowsPython`."""
        return platform.python_version() if self.settings.python_path in {"", sys.executable} else None

    def jobs(self, named: str | None = None) -> list[JobHandle]:
        """All jobs in the state directory, or those named ``named``, in order of submission.

        :raises BackendUnavailableError: the state directory cannot be read.
        """
        found = []
        with _accessible(f"the jobs in {self.state_dir} cannot be read"):
            for name in self._folders():
                with contextlib.suppress(BackendError):
                    stored = Job(self.state_dir / "jobs" / name).submission()
                    if stored is not None and named in {None, stored.handle.job_id, stored.handle.name, stored.name}:
                        found.append((stored.created, stored.handle))
        return [handle for _, handle in sorted(found, key=lambda pair: pair[0])]

    def _folders(self) -> list[str]:
        """The names of the jobs' directories. (``glob`` would find none in a directory that may not be read.)"""
        try:
            return [root.name for root in (self.state_dir / "jobs").iterdir() if "-" in root.name]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _gpus(self) -> list[gpus.Gpu]:
        return gpus.find(self.settings.gpus, os.environ)

    def _job(self, name: str) -> Job:
        _, folder = host.split(name)
        if not _FOLDER.fullmatch(folder):
            raise BackendError(f"not a job of the local backend: {name!r}")
        return Job(self.state_dir / "jobs" / folder)

    def _describe_safely(self, handle: JobHandle) -> JobStatus:
        """The status of one job; UNKNOWN if its files cannot be read, so that it does not hide the others."""
        try:
            return self._describe(handle)
        except BackendError as error:
            if self._is_locked(handle):
                return JobStatus(handle, JobState.UNKNOWN, error.message)
            failure = Failure(FailureCause.LOST, error.message)
            return JobStatus(handle, JobState.FAILED, failure.message, failure)
        except (OSError, ValueError, KeyError) as error:
            # There is no permission, or the files were written by another version: the state is unknown.
            return JobStatus(handle, JobState.UNKNOWN, f"its state cannot be read: {error}")

    def _is_locked(self, handle: JobHandle) -> bool:
        """Whether the job's launcher is running. A job with an invalid name has no launcher."""
        try:
            return held(self._job(handle.name).lock_file)
        except BackendError:
            return False

    def _describe(self, handle: JobHandle) -> JobStatus:
        if other := self.elsewhere(handle):
            return JobStatus(handle, JobState.UNKNOWN, f"runs on host {other}; its state can be read only there")
        job = self._job(handle.name)
        state = job.state()
        if (state is None or not JobState(state["state"]).terminal) and not held(job.lock_file):
            state = reconcile(job)
        if state is None:
            return self._without_state(handle, job)
        current = JobState(state["state"])
        if not current.terminal and job.cancel_file.exists():
            current = JobState.CANCELLING
        failure = state.get("failure")
        return JobStatus(
            handle,
            current,
            state["detail"],
            None if failure is None else Failure.from_json(failure),
            state.get("created"),
            state.get("started"),
            state.get("ended"),
        )

    def _without_state(self, handle: JobHandle, job: Job) -> JobStatus:
        stored = job.submission()
        if stored is not None:
            return JobStatus(handle, JobState.QUEUED, "the launcher is starting", created=stored.created)
        if left := processes.of_job(job.root):
            # The job's launcher ends them, unless it has died too.
            for process in left:
                process.signal(signal.SIGTERM)
            words = f"its directory {job.root} was deleted; {len(left)} processes are being ended"
            return JobStatus(handle, JobState.UNKNOWN, words)
        failure = Failure(FailureCause.LOST, f"the local backend knows no job {handle.name} in {self.state_dir}")
        return JobStatus(handle, JobState.FAILED, failure.message, failure)

    def _store(self, job: Job, submission: Submission) -> Stored:
        """Enter the queue, then write ``submission.json``. Two concurrent calls return the same stored submission."""
        self._make_folders(job)
        Queue(self.state_dir).enter(job.name)
        stored = Stored(located(submission), self.settings, time.time(), self.host(), self._separate_stderr)
        if not json_files.create_json(job.submission_file, stored.to_json()):
            return job.submission() or stored
        return stored

    def _make_folders(self, job: Job) -> None:
        # Other users must not read logs and arguments: they may be private.
        self.state_dir.mkdir(parents=True, exist_ok=True)
        for folder in (self.state_dir / "jobs", self.state_dir / "locks", job.root, job.logs):
            folder.mkdir(mode=0o700, exist_ok=True)

    def _launch(self, job: Job) -> None:
        """Start a launcher, unless the job has or had one.

        The file lock is taken here and inherited by the launcher, so it is held without a gap: of two processes that
        find the job at once, only one starts it.
        """
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _begun(job):
            # A launcher that holds the lock writes a state soon. A process that reads the state holds it only briefly.
            lock = FileLock.take(job.lock_file, wait=_LOCK_PAUSE)
            if lock is not None:
                with lock:
                    if not _begun(job):
                        self._start(job, lock)
                return
            if time.monotonic() >= deadline:
                return

    def _start(self, job: Job, lock: FileLock) -> None:
        package = Path(mlengine.__file__).parent.parent
        env = {**env_allowlist.for_launcher(os.environ), "PYTHONPATH": str(package)}
        launcher = [sys.executable, "-P", "-m", "mlengine.backends.local.launcher", str(job.root), str(lock.fileno())]
        with job.launcher_log.open("ab") as sink:
            try:
                # The shell exits at once, so that the launcher is not a child of this process: it survives if this
                # process and its children are killed, and does not need to be reaped here.
                subprocess.run(
                    ["/bin/sh", "-c", '"$@" &', "sh", *launcher],
                    cwd=job.root,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    pass_fds=(lock.fileno(),),
                    start_new_session=True,
                    timeout=_START_SECONDS,
                    check=True,
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise BackendUnavailableError(
                    f"the launcher of {job.name} cannot be started: {error}", hint=f"see {job.launcher_log}"
                ) from error


@contextlib.contextmanager
def _accessible(what: str) -> Iterator[None]:
    """Report operating system errors as an inaccessible state directory.

    :raises BackendUnavailableError: the state directory cannot be read or written.
    """
    try:
        yield
    except OSError as error:
        hint = (
            "free disk space"
            if disk_is_full(error)
            else "correct the setting local_state_dir, or its owner and permissions"
        )
        raise BackendUnavailableError(f"{what}: {error}", hint=f"{hint}; then try again") from error


def _begun(job: Job) -> bool:
    return job.state() is not None or job.cancel_file.exists()
