"""Claims on job directories.

A job directory belongs to the process that creates ``job.json`` in it: Cloud Storage lets only one creation succeed. If
a directory belongs to another job, the next name is tried (``D``, ``D_2``, …). If that other job is an earlier job of
the same task, it is cancelled first, so that a task never has two live jobs. Earlier jobs are:

* a job of an earlier generation: the task was cleared;
* a job of a deleted run of the same name, in the same Airflow.

All other jobs are not changed, including jobs with the same names of another Airflow.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlengine.backends import LearnsRegions, RunsOnHost, TrainingBackend
from mlengine.core.errors import MlengineError, ObjectMissingError, StorageConflictError
from mlengine.core.input_changes import Inputs, changes, describe
from mlengine.core.job import JobKey, JobRecord, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.jobs.job_dir import contents, numbered, prepare
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

_MAX_CONFLICTS = 10


@dataclass(frozen=True)
class Intent:
    """A training to submit. ``job_dir`` is its directory, unless another job owns the directory.

    :param own_dir: whether the directory's name was generated. If so, and the directory is not empty, the next name is
        tried. A directory that the user named is used even if it is not empty.
    :param job_id: the job's name; by default, the name of its directory.
    :param requested: the spec before the backend reduced the cluster to fit its machine; otherwise equal to ``spec``.
    :param earlier: keys of the same task before it was cleared. Their live jobs are cancelled before this one is
        submitted, whichever directories they have.
    :param installation: the id of the Airflow that submits; empty outside of Airflow, or if the id is not known.
    """

    key: JobKey
    model: str
    job_dir: JobDir
    spec: TrainingSpec
    inputs: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    earlier: tuple[JobKey, ...] = ()
    requested: TrainingSpec | None = None
    installation: str = ""
    own_dir: bool = False
    job_id: str = ""

    @property
    def compared(self) -> Inputs:
        """The inputs that an existing job must have to be usable for this intent."""
        return Inputs((self.requested or self.spec).to_json(), self.inputs)


def compared(record: JobRecord) -> Inputs:
    """The inputs of a claimed job, to compare with :meth:`Intent.compared`."""
    return Inputs(record.requested or record.spec, record.inputs)


class Claims:
    """The claims of jobs on one backend."""

    def __init__(self, storage: Storage, backend: TrainingBackend) -> None:
        self._storage = storage
        self._backend = backend

    def read(self, job_dir: JobDir) -> tuple[JobRecord, int]:
        """Read the claim on a directory and its object generation.

        :raises ObjectMissingError: the directory is not claimed.
        """
        data, generation = self._storage.read_with_generation(job_dir.claim)
        return JobRecord.from_bytes(data), generation

    def find(self, intent: Intent) -> tuple[JobDir, JobRecord] | None:
        """Find the claim of this key.

        Live earlier jobs of the same task are cancelled if their directories come before it.
        """
        for job_dir, record in self._claimed(intent):
            if record is None:
                return None
            if record.key == intent.key.digest:
                return job_dir, record
            self._pass_over(intent, record, job_dir)
        return None

    def take(self, intent: Intent) -> tuple[JobDir, JobRecord]:
        """Find the claim of this key, or create it.

        :raises MlengineError: too many directories of that name belong to other jobs.
        """
        digest = intent.key.digest
        for job_dir, found in self._claimed(intent):
            record = found or self._create(intent, job_dir)
            if record.key == digest:
                return job_dir, record
            self._pass_over(intent, record, job_dir)
        raise MlengineError(f"no free job dir at {intent.job_dir.uri}", hint="trigger a new run")

    def end_all(self, key: str, why: str) -> None:
        """Cancel the live jobs of a key.

        The search uses the key, because a crash may prevent recording a job's name.
        """
        for status in self._live(key):
            log.warning("cancelling job %s: %s", status.handle.job_id, why)
            self._backend.cancel(status.handle)

    def host(self) -> str:
        return self._backend.host() if isinstance(self._backend, RunsOnHost) else ""

    def _claimed(self, intent: Intent) -> Iterator[tuple[JobDir, JobRecord | None]]:
        """The candidate directories with their claims. With a generated name, one that is not empty is skipped."""
        for job_dir in numbered(intent.job_dir):
            try:
                record = self.read(job_dir)[0]
            except ObjectMissingError:
                named = job_dir == intent.job_dir and not intent.own_dir
                if named or not contents(self._storage, job_dir):
                    yield job_dir, None
            else:
                yield job_dir, record

    def _create(self, intent: Intent, job_dir: JobDir) -> JobRecord:
        """Create a claim. Returns the claim of another process if that was created first."""
        found_empty = not contents(self._storage, job_dir)
        if not found_empty:
            log.warning(
                "%s is not empty; the job will train into it and leave the existing objects unchanged", job_dir.uri
            )
        prepare(self._storage, job_dir)
        requested = (intent.requested or intent.spec).to_json()
        record = JobRecord(
            key=intent.key.digest,
            job_id=intent.job_id or job_dir.job_id,
            model=intent.model,
            backend=self._backend.name,
            spec=intent.spec.to_json(),
            owner={**asdict(intent.key), "installation": intent.installation},
            inputs=dict(intent.inputs),
            requested={} if requested == intent.spec.to_json() else requested,
            host=self.host(),
            history=({"time": round(time.time(), 3), "event": "claimed"},),
            found_empty=found_empty,
        )
        try:
            self._storage.create(job_dir.claim, record.to_bytes())
        except StorageConflictError:
            return self.read(job_dir)[0]
        log.info("job dir: %s; key: %s", job_dir.uri, record.key)
        return record

    def _pass_over(self, intent: Intent, record: JobRecord, job_dir: JobDir) -> None:
        if not is_same_task(record.owner, intent.key):
            return
        if record.owner.get("run_uid", "") == intent.key.run_uid:
            self._end_earlier(record, "its task was cleared to train again")
            return
        differ = describe(changes(compared(record), intent.compared)) or "its inputs are the same"
        run = f"run {intent.key.run_id} of {intent.key.dag_id}"
        if intent.installation and record.owner.get("installation") == intent.installation:
            log.info("keeping %s: it belongs to an earlier %s, which was deleted (%s)", job_dir.uri, run, differ)
            self._end_earlier(record, f"{run} was deleted and recreated")
            return
        log.info("leaving %s unchanged: it belongs to %s of another Airflow (%s)", job_dir.uri, run, differ)
        self._warn_of_foreign(record)

    def _end_earlier(self, record: JobRecord, why: str) -> None:
        if record.backend != self._backend.name:
            log.warning(
                "job %s ran on backend %s, not %s; if it is still running, run mlengine jobs cancel %s --backend %s",
                *(record.job_id, record.backend, self._backend.name, record.job_id, record.backend),
            )
            return
        if record.host and record.host != self.host():
            log.warning("job %s may still be running on host %s; cancel it there", record.job_id, record.host)
        self._learn_region(record)
        self.end_all(record.key, why)

    def _warn_of_foreign(self, record: JobRecord) -> None:
        """Warn about a live job of another Airflow: if that Airflow's database was lost, no task waits for the job."""
        if record.backend != self._backend.name:
            return
        self._learn_region(record)
        for status in self._live(record.key):
            log.warning(
                "job %s of that run is %s; if no Airflow is waiting for it, run mlengine jobs reap --installation %s",
                *(status.handle.job_id, status.state.value, record.owner.get("installation") or "ID"),
            )

    def _learn_region(self, record: JobRecord) -> None:
        if isinstance(self._backend, LearnsRegions):
            self._backend.learn_region(TrainingSpec.from_json(record.spec), *record.regions)

    def _live(self, key: str) -> list[JobStatus]:
        handles = self._backend.find(key)
        return [status for status in self._backend.describe(handles) if not status.state.terminal] if handles else []


def update(storage: Storage, job_dir: JobDir, change: Callable[[JobRecord], JobRecord | None]) -> JobRecord | None:
    """Change ``job.json``. If another process changes it at the same time, the change is repeated with the new record.

    :param change: returns the new record, or ``None`` to leave the record as it is.
    :returns: the new record; ``None`` if the record was not changed.
    :raises ObjectMissingError: the directory is not claimed.
    :raises StorageUnavailableError: the bucket does not respond; a later call continues.
    :raises MlengineError: other processes changed the record at every attempt.
    """
    for _ in range(_MAX_CONFLICTS):
        data, generation = storage.read_with_generation(job_dir.claim)
        changed = change(JobRecord.from_bytes(data))
        if changed is None:
            return None
        try:
            storage.replace(job_dir.claim, changed.to_bytes(), generation)
        except StorageConflictError:
            continue
        return changed
    raise MlengineError(
        f"{job_dir.claim} could not be updated: other processes changed it {_MAX_CONFLICTS} times", hint="try again"
    )


def is_same_task(owner: Mapping[str, Any], key: JobKey) -> bool:
    """Whether a claim belongs to the same task instance by name, in any generation and any run with the same name."""
    names = ("dag_id", "run_id", "task_id", "map_index")
    return all(owner.get(name) == getattr(key, name) for name in names)
