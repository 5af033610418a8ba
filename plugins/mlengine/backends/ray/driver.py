"""The driver of one job: the process that Ray runs as the job's entrypoint, from the reservation to the final state.

It reads the submission from the bucket, runs a :class:`~mlengine.backends.ray.supervisor.Supervisor`, and writes state
and log to the bucket. SIGTERM is a cancellation: Ray sends it when the job is stopped. If the driver is killed, its
actors end, and the replicas end with them.

Its exit code is 0 if the job has succeeded.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from mlengine.backends import outputs
from mlengine.backends.local.outcome import Outcome
from mlengine.backends.ray.bundles import bundles
from mlengine.backends.ray.cluster import Cluster
from mlengine.backends.ray.group import Group, unattended_seconds
from mlengine.backends.ray.journal import Journal
from mlengine.backends.ray.record import Stored, folder
from mlengine.backends.ray.supervisor import Supervisor
from mlengine.core.errors import MlengineError
from mlengine.core.job import FailureCause, JobState
from mlengine.core.layout import JobDir, join
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

_SHORT_SECONDS = 30.0  # for a chief that succeeds sooner, it is checked whether it has written anything


class Driver:
    """Runs one job."""

    def __init__(self, stored: Stored, storage: Storage) -> None:
        self.stored, self.storage = stored, storage
        it = stored.submission
        logs = join(JobDir(it.job_dir).logs, f"attempt-{it.attempt}")
        self.journal = Journal(storage, folder(stored.handle), logs)
        self._stopped = threading.Event()
        self._queued_at = time.monotonic()
        self._training_at: float | None = None

    def run(self) -> JobState:
        """Run the job, write its final state to the bucket, and return that state."""
        self._catch_signals()
        unattended = unattended_seconds(self.stored.settings)
        # The state is in the bucket before a replica starts: a job without a state has no replicas.
        self.journal.begin(
            JobState.PREPARING, "the driver is connecting to Ray", created=time.time(), lost_seconds=unattended
        )
        try:
            outcome = self._train()
        except Exception as error:
            log.exception("the driver failed")
            outcome = Outcome.because(FailureCause.SERVICE, f"the driver failed: {error!r}"[:2000])
        self.journal.say(f"{outcome.state.value}: {outcome.detail}")
        written = None if outcome.failure is None else outcome.failure.to_json()
        self.journal.state(outcome.state, outcome.detail, failure=written, ended=time.time(), restarting=False)
        if not self.journal.close():
            log.error("the final state could not be written to the bucket")
        return outcome.state

    def stop(self) -> None:
        """Cancel the job."""
        self._stopped.set()

    def _train(self) -> Outcome:
        it = self.stored.submission
        wanted = bundles(it.spec, self.stored.settings.resources)
        cluster = Cluster(self.stored.name, wanted, self.stored.settings.placement)
        cluster.connect()
        self._catch_signals()  # Ray has installed handlers of its own
        group = Group(self.stored, cluster, self.journal, self._end_requested, self._wait)
        supervisor = Supervisor(group, self._training_begins, self._record)
        outcome = supervisor.run()
        if outcome.state is JobState.SUCCEEDED and supervisor.chief_seconds < _SHORT_SECONDS:
            return self._with_outputs_checked(outcome, supervisor.chief_seconds)
        return outcome

    def _with_outputs_checked(self, outcome: Outcome, seconds: float) -> Outcome:
        try:
            empty = outputs.wrote_nothing(self.storage, self.stored.submission.job_dir)
        except MlengineError as error:
            log.warning("cannot list the job's outputs: %s", error)
            return outcome
        if not empty:
            return outcome
        message = outputs.warning(self.stored.submission.spec, seconds)
        return replace(outcome, detail=message)

    def _record(self, packages: Sequence[str]) -> None:
        """Write the list of installed packages, before the job starts, so that it exists however the job ends."""
        uri = JobDir(self.stored.submission.job_dir).environment
        try:
            self.storage.write(uri, "".join(f"{line}\n" for line in packages).encode(), "text/plain; charset=utf-8")
        except MlengineError as error:  # it is only a record: the job can run without it
            self.journal.say(f"the list of installed packages could not be written to the bucket: {error.message}")

    def _catch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())

    def _wait(self, seconds: float) -> None:
        self._stopped.wait(seconds)

    def _training_begins(self) -> None:
        self._training_at = time.monotonic()

    def _end_requested(self) -> Outcome | None:
        """The outcome if the job is to end now (cancelled, or a deadline); otherwise ``None``."""
        if self._stopped.is_set():
            return Outcome.cancelled()
        spec = self.stored.submission.spec
        if self._training_at is None:
            most, since, what = spec.max_wait_seconds, self._queued_at, "waited"
        else:
            most, since, what = spec.max_running_seconds, self._training_at, "run"
        if most is None or time.monotonic() - since < most:
            return None
        return Outcome.because(FailureCause.DEADLINE, f"the job has {what} for more than {most} s")


def main(argv: list[str]) -> int:
    """Run the driver.

    :param argv: the URI of the submission.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    storage = Storage()
    stored = Stored.from_bytes(storage.read(argv[0]))
    state = Driver(stored, storage).run()
    sys.stdout.flush()
    # Ray's own threads must not delay the end; its actors end when this process does.
    os._exit(0 if state is JobState.SUCCEEDED else 1)
