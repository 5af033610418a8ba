"""The launcher: one detached process per job, from the queue to the final state.

:meth:`LocalBackend.submit` starts ``python -m mlengine.backends.local.launcher JOB LOCK``. The launcher

1. inherits the job's file lock as an open descriptor, so that no second launcher can start;
2. stops if the job already has a state: an earlier launcher has died, and a lost job is never run again;
3. waits in the queue, and for its GPUs (QUEUED); 4. builds the environment (PREPARING); 5. runs the replicas (RUNNING);
6. writes the final state; 7. leaves the queue; 8. uploads the logs to the bucket.

It survives the task, worker and scheduler that submitted the job. It imports neither Airflow nor Google's libraries.
While it runs, no other process writes the job's state.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from mlengine.backends import outputs
from mlengine.backends.local import gpus
from mlengine.backends.local.gpu_reservation import Reservation, reserve
from mlengine.backends.local.outcome import Outcome
from mlengine.backends.local.queue import Queue
from mlengine.backends.local.reconcile import reconcile
from mlengine.backends.local.record import Job, Stored
from mlengine.backends.local.replica import Replica
from mlengine.backends.local.replica_env import base_env
from mlengine.backends.local.statefile import StateFile
from mlengine.backends.local.stop_conditions import StopConditions
from mlengine.backends.local.supervisor import Supervisor
from mlengine.backends.local.waker import Waker
from mlengine.core.cluster import has_cluster
from mlengine.core.errors import BackendError
from mlengine.core.job import FailureCause, JobState
from mlengine.core.spec import Role
from mlengine.runtime import data_cache, env_allowlist, json_files, processes
from mlengine.runtime.file_lock import FileLock
from mlengine.runtime.venv import find_environment, lock_path

log = logging.getLogger("mlengine.local")

_OUTPUTS_SECONDS = 10.0


@dataclass
class Launcher:
    """Runs one job. The caller holds the file lock."""

    job: Job
    stored: Stored
    waker: Waker

    def __post_init__(self) -> None:
        self.state = StateFile(self.job)
        self.gpus: Reservation = {}
        self._pause = 0.0
        self.queue = Queue(self.job.state_dir)
        self.stop_conditions = StopConditions(self.job, self.stored.submission.spec, self.waker, self._cancelling)

    def run(self) -> None:
        """Run steps 3 to 8 of the list at the top of this module."""
        self.state.write(JobState.QUEUED, "the launcher has started", created=self.stored.created)
        try:
            outcome = self._wait_turn() or self._prepare_and_train()
        except Exception as error:
            log.exception("the launcher failed")
            outcome = Outcome.because(FailureCause.SERVICE, f"the launcher failed: {error!r}")
        orphans = processes.end_all(self._orphans, 0.0)
        if orphans:
            log.warning("ended processes that the replicas left running: %s", orphans)
        for group in self.gpus.values():
            for it in group:
                it.give_back()
        self._finish(outcome)
        if self.stored.settings.log_upload_timeout_seconds:
            self._run_step("upload", self.stored.settings.log_upload_timeout_seconds, obey=False)

    def _wait_turn(self) -> Outcome | None:
        needs = gpus.needed(self.stored.submission.spec)
        try:
            found = gpus.find(self.stored.settings.gpus, os.environ) if needs else []
            gpus.check(self.stored.submission.job_id, self.stored.submission.spec, found)
        except BackendError as error:
            return Outcome.because(FailureCause.SERVICE, str(error))
        last = ""
        while why := self._waits_for(needs, found):
            if (outcome := self.stop_conditions.check()) is not None:
                return outcome
            if why != last:
                last = why
                self.state.write(JobState.QUEUED, why)
                log.info("%s", why)
            self.waker.wait(self._pause)
        return self.stop_conditions.check()

    def _waits_for(self, needs: dict[gpus.ReplicaId, int], found: list[gpus.Gpu]) -> str:
        """The reason why the job cannot run yet; "" if it can run, and has reserved its GPUs."""
        capacity = self.stored.settings.max_concurrent_jobs
        place = self.queue.place(self.job.name, capacity, reconcile)
        self._pause = min(3.0, 0.2 + 0.1 * place) if place else 0.5
        if place:
            return f"place {place} in the queue; this machine runs {capacity} at once"
        if not needs:
            return ""
        self.gpus, why = reserve(self.job, self.queue, needs, found)
        if not why:
            self.state.note(gpus=[it.gpu.id for group in self.gpus.values() for it in group])
        return why

    def _prepare_and_train(self) -> Outcome:
        self.state.write(JobState.PREPARING, "preparing the environment")
        spec = self.stored.submission.spec
        if spec.python_version:
            log.info("pythonVersion %s has no effect on this machine", spec.python_version)
        if spec.runtime_version:
            log.info(
                "runtimeVersion %s selects no TensorFlow version; installing the package's dependencies",
                spec.runtime_version,
            )
        if has_cluster(spec):
            log.info('TF_CONFIG calls the chief "%s"', spec.primary_name)
        prepared = self._prepare()
        if isinstance(prepared, Outcome):
            return prepared
        data = data_cache.use(self.job.state_dir)
        try:
            self.stop_conditions.training_begins()
            self.state.write(JobState.RUNNING, "starting", started=time.time())
            environments = {
                role: (python, base_env(self.job.root, self.job.state_dir, self.stored.submission, python))
                for role, (python, _) in prepared.items()
            }
            supervisor = Supervisor(
                self.job, self.stored, environments, self.gpus, self.stop_conditions.check, self._wait, self._report
            )
            outcome = supervisor.run()
        finally:
            for lock in (data, *(in_use for _, in_use in prepared.values())):
                if lock is not None:
                    lock.give_back()
        return self._with_outputs_checked(outcome, supervisor.chief_seconds)

    def _with_outputs_checked(self, outcome: Outcome, chief_seconds: float) -> Outcome:
        """Add a warning to the outcome of a job that succeeded within seconds without output.

        The trainer of such a job probably matched no role.
        """
        limit = self.stored.settings.empty_output_warning_seconds
        if outcome.state is not JobState.SUCCEEDED or chief_seconds >= limit:
            return outcome
        self._run_step("outputs", _OUTPUTS_SECONDS, obey=False)
        if not (json_files.read_json(self.job.step_file) or {}).get("empty"):
            return outcome
        message = outputs.warning(self.stored.submission.spec, chief_seconds)
        log.warning("%s", message)
        return replace(outcome, detail=message)

    def _prepare(self) -> dict[Role, tuple[Path, FileLock]] | Outcome:
        """For each role, the environment's interpreter, and the lock that keeps the environment from being removed."""
        pools = self.stored.submission.spec.pools
        environments = len({gpus.accelerator(pool) for pool in pools})
        for _ in range(3):
            outcome = self._run_step("prepare", environments * self.stored.settings.build_timeout_seconds + 60.0)
            if outcome is not None:
                return outcome
            result = json_files.read_json(self.job.step_file)
            if result is None:
                return Outcome.because(FailureCause.SERVICE, "the process that builds the environment was ended")
            if "error" in result:
                cause = FailureCause.SERVICE if result["retryable"] else FailureCause.TRAINER
                return Outcome.because(cause, result["message"])
            found = {Role(role): self._use(digest) for role, digest in result["digests"].items()}
            ready = {role: it for role, it in found.items() if it is not None}
            if ready.keys() == found.keys():
                self.state.note(environment=result["digests"][Role.CHIEF])
                return ready
            # Meanwhile, another process has removed an environment as unused: build it again.
            for _python, in_use in ready.values():
                in_use.give_back()
        return Outcome.because(FailureCause.SERVICE, "the environment was removed while it was built")

    def _use(self, digest: str) -> tuple[Path, FileLock] | None:
        """The environment's interpreter and a lock on the environment; ``None`` if it has been removed."""
        in_use = FileLock.take(lock_path(self.job.state_dir, digest), wait=5.0, shared=True)
        environment = find_environment(self.job.state_dir, digest)
        if in_use is not None and environment is not None:
            return environment.python, in_use
        if in_use is not None:
            in_use.give_back()
        return None

    def _run_step(self, verb: str, seconds: float, *, obey: bool = True) -> Outcome | None:
        """Run a ``stage`` process until it ends or the job is to end.

        :param obey: whether to check the stop conditions meanwhile; ``False`` after the job has ended.
        """
        self.job.step_file.unlink(missing_ok=True)
        parent = os.getpid()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mlengine.backends.local.stage", verb, str(self.job.root)],
            # A step that runs after the job has ended must not be ended as one of the job's processes.
            env={**os.environ, env_allowlist.MARK: str(self.job.root)} if obey else None,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # Safe: the launcher is single-threaded.
            preexec_fn=lambda: processes.die_with_parent(parent),  # noqa: PLW1509
        )
        deadline = time.monotonic() + seconds
        outcome = None
        try:
            while process.poll() is None and outcome is None and time.monotonic() < deadline:
                outcome = self.stop_conditions.check() if obey else None
                self._wait(0.5, {process.pid})
        finally:
            if process.poll() is None:
                log.info("ending the process of the step %s", verb)
                processes.end_all(self._orphans, 2.0)
            process.wait()
        return outcome

    def _wait(self, seconds: float, own: set[int]) -> None:
        self.waker.wait(seconds)
        processes.reap_strangers(own)

    def _orphans(self) -> list[processes.Process]:
        return processes.of_job(self.job.root, processes.children())

    def _report(self, detail: str, replicas: list[Replica]) -> None:
        self.state.note(replicas=[replica.to_json() for replica in replicas])
        if self.state.state is not JobState.CANCELLING:
            self.state.write(JobState.RUNNING, detail)

    def _cancelling(self) -> None:
        log.info("cancelling the job")
        self.state.write(JobState.CANCELLING, "ending the job's processes")

    def _finish(self, outcome: Outcome) -> None:
        failure = outcome.failure
        log.info("%s: %s", outcome.state.value, outcome.detail)
        written = None if failure is None else failure.to_json()
        self.state.write(outcome.state, outcome.detail, failure=written, ended=time.time())
        if failure is None or failure.cause is not FailureCause.TRAINER:
            # The next attempt does not use the scratch. After an error of the trainer, it is kept for debugging.
            shutil.rmtree(self.job.work, ignore_errors=True)
        self.queue.leave(self.job.name)


def main(argv: list[str]) -> int:
    job = Job(Path(argv[0]))
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03dZ %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    lock = FileLock.inherited(int(argv[1]))
    stored = job.submission()
    if stored is None or job.state() is not None:
        lock.give_back()
        reconcile(job)
        return 0
    processes.adopt_grandchildren()
    with lock:
        Launcher(job, stored, Waker()).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
