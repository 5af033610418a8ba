"""A job's key, id and states, and the record that claims it.

The states are those of ML Engine. A backend maps every state of its service to one of them. A state that is new in the
service becomes ``UNKNOWN``, which is not terminal, so that no decision depends on it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from mlengine.core.errors import MlengineError


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "QUEUED"
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    PAUSED = "PAUSED"
    EXPIRED = "EXPIRED"
    UNKNOWN = "UNKNOWN"

    @property
    def terminal(self) -> bool:
        """Whether a job in this state never changes again."""
        return self in _TERMINAL


_TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})


class FailureCause(StrEnum):
    """Why a job ended without success. It decides whether attempt n+1 is submitted."""

    TRAINER = "trainer"  # an error of the trainer: another attempt would fail in the same way
    PREEMPTED = "preempted"  # stopped by its host (exit code 143 or SIGTERM)
    LOST = "lost"  # its launcher or machine is gone
    QUOTA = "quota"
    NO_QUOTA = "no_quota"  # the limit of a quota is 0: waiting does not help
    SERVICE = "service"  # the training service's own error
    DEADLINE = "deadline"
    CANCELLED = "cancelled"

    @property
    def retryable(self) -> bool:
        return self in {FailureCause.PREEMPTED, FailureCause.LOST, FailureCause.QUOTA, FailureCause.SERVICE}

    def advice(self, *, by_hand: bool = False) -> str:
        """What to do about the failure. The table in ``docs/operations.md`` has the same texts.

        :param by_hand: whether the job was submitted on the command line, so that there is no task to clear.
        """
        return _ADVICE[self].format(again=_again(by_hand))


_ADVICE = {
    FailureCause.TRAINER: "read the last lines; correct the trainer, its arguments or its data, then {again}",
    FailureCause.PREEMPTED: "nothing, unless `max_attempts` is reached; then {again}, or use on-demand machines",
    FailureCause.LOST: "check that the machine is up and has free memory and disk space; then {again}",
    FailureCause.QUOTA: "request fewer or other machines, or more quota; then {again}",
    FailureCause.NO_QUOTA: "request this quota for the project and region, or other machines; then {again}",
    FailureCause.SERVICE: "read the launcher's log for the service's error; {again} to try again",
    FailureCause.DEADLINE: "raise the limit, or give the job fewer steps or more machines; then {again}",
    FailureCause.CANCELLED: "{again} to train again",
}


def _again(by_hand: bool) -> str:
    """How to train again after a failure. Submitting the same key would only find the failed job."""
    return "train under another job id" if by_hand else "clear `submit`"


# Messages of services and frameworks about a process that needed more memory than its machine or accelerator has.
OUT_OF_MEMORY = re.compile(r"oom.?killed|out[- ]of[- ]memory", re.I)
_MEMORY_ADVICE = "out of memory: request machines with more memory, or smaller batches or shuffle buffers; then {again}"


class Decision(StrEnum):
    """The result of a submission. Log, XCom, metric and UI use these values."""

    FRESH_SUBMIT = "fresh_submit"
    REATTACHED = "reattached"
    ALREADY_SUCCEEDED = "already_succeeded"
    RESTARTED_FROM_CHECKPOINT = "restarted_from_checkpoint"
    DUPLICATE_CANCELLED = "duplicate_cancelled"
    REUSED = "reused"


# Events in ``job.json``: the service restarts the job by itself, within an attempt; the job runs again.
SERVICE_RESTART, SERVICE_RESUMED = "service_restart", "service_resumed"
# Event in ``job.json``: a person cancelled the attempt. It has the person's name (``by``) and the reason (``why``).
CANCELLED_BY_PERSON = "cancelled_by_person"

# The values of `dag_id` in the keys of jobs from the command line. No DAG run waits for these jobs.
BY_HAND = frozenset({"mlengine train", "mlengine rerun"})


def dag_of(owner: Mapping[str, Any]) -> str:
    """The id of the DAG that owns a job; empty for a job that was submitted on the command line."""
    dag_id = str(owner.get("dag_id") or "")
    return "" if dag_id in BY_HAND else dag_id


# Airflow stores two ids that distinguish runs of the same name: one under a key of each submitting task's state store,
# and one in a Variable.
RUN_UID_KEY = "mlengine_run_uid"
# The key in the same state store for how a task reaches its job: Airflow keeps a task's rendered fields for the newest
# runs only.
ACCESS_KEY = "mlengine_access"
INSTALLATION_VARIABLE = "mlengine_installation_id"
INSTALLATION_DESCRIPTION = "Id of this Airflow installation. mlengine writes it into each job.json; do not change it."


@dataclass(frozen=True)
class JobKey:
    """The identity of one intent to train. A retry of a task has the same key, a cleared task has another one.

    :param generation: a number that changes when the task is cleared, but not when it is retried. In Airflow it is the
        task instance's ``max_tries``: initially ``retries``, and raised by every clear of a task that ran; retries,
        deferrals and edits of the DAG file do not change it.
    :param run_uid: distinguishes DAG runs of the same name: a deleted run from the one created after it, and the runs
        of two Airflow installations. Retries and clears keep it. Empty for jobs from the command line.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    generation: int = 0
    run_uid: str = ""

    @property
    def digest(self) -> str:
        """The digest of the key: 40 hex digits, valid as a label."""
        text = json.dumps([self.dag_id, self.run_id, self.task_id, self.map_index, self.generation, self.run_uid])
        return hashlib.sha256(text.encode()).hexdigest()[:40]


def make_job_id(model: str, hint: str, key: JobKey) -> str:
    """A readable job id, unique to the key and valid in ML Engine (letters, digits, underscore, at most 128).

    :param hint: a readable part of the id: the dataset version or the run's date.
    """
    words = re.sub(r"[^0-9a-zA-Z]+", "_", f"{model}_{hint}").strip("_")[:100].rstrip("_")
    if not words or not words[0].isalpha():
        words = f"j_{words}".rstrip("_")
    return f"{words}_{key.digest[:8]}"


def make_label(text: str) -> str:
    """``text`` as a label value that Google's services accept: at most 63 of a-z 0-9 _ -."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower())[:63].strip("-")


@dataclass(frozen=True)
class JobHandle:
    """A reference to a submitted attempt. It is all that a backend needs to describe it, read its logs or cancel it.

    :param backend: the backend's registered name.
    :param name: the job's name in the backend: a resource name, or the name of a state directory.
    """

    backend: str
    name: str
    job_id: str
    attempt: int
    job_dir: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{name: data[name] for name in ("backend", "name", "job_id", "attempt", "job_dir")})


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed.

    :param replica: ``role-index`` of the replica that failed, if a replica failed.
    :param exit_code: the replica's exit code; if negative, the signal that ended it, as in :mod:`subprocess`.
    :param log_tail: the replica's last log lines.
    """

    cause: FailureCause
    message: str
    replica: str | None = None
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()

    def advice(self, *, by_hand: bool = False) -> str:
        """What to do about the failure; see :meth:`FailureCause.advice`."""
        memory = self.cause is FailureCause.TRAINER and OUT_OF_MEMORY.search("\n".join((self.message, *self.log_tail)))
        return _MEMORY_ADVICE.format(again=_again(by_hand)) if memory else self.cause.advice(by_hand=by_hand)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "cause": self.cause.value, "log_tail": list(self.log_tail)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(
            cause=FailureCause(data["cause"]),
            message=data["message"],
            replica=data.get("replica"),
            exit_code=data.get("exit_code"),
            log_tail=tuple(data.get("log_tail", ())),
        )


@dataclass(frozen=True)
class JobStatus:
    """The status of an attempt at one moment. Times are in seconds since the epoch.

    :param detail: one line of text: the queue position, what is being prepared, which replica is missing.
    :param started: when the attempt ran for the first time.
    :param restarting: whether the service is restarting the job: it has run, and waits for machines again.
    :param links: URLs of the running job's web pages, by replica: interactive shells and dashboards.
    """

    handle: JobHandle
    state: JobState
    detail: str = ""
    failure: Failure | None = None
    created: float | None = None
    started: float | None = None
    ended: float | None = None
    restarting: bool = False
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Whether the attempt has ended, even if the backend does not know the result yet."""
        return self.state.terminal or self.ended is not None


@dataclass(frozen=True)
class JobRecord:
    """``job.json``: the claim on a job dir, and the history of its job.

    :param key: the digest of the :class:`JobKey` that owns the dir.
    :param spec: the :class:`~mlengine.core.spec.TrainingSpec` as JSON, for later attempts and re-runs.
    :param owner: the fields of the :class:`JobKey`, and ``installation``, the id of the Airflow installation that
        submitted it. It is used to find earlier jobs of the same task.
    :param inputs: the job's lineage: the digests of package and dataset, and other inputs that the caller knows.
    :param requested: the spec as JSON before the backend reduced the cluster; empty if the cluster was not reduced.
    :param name: the current attempt's name in the backend; ``None`` between claim and submission.
    :param host: the host on which the backend's jobs are visible, if the backend runs on one host.
    :param history: events, oldest first.
    :param found_empty: whether the dir was empty when it was claimed, so that all objects in it belong to the job.
    """

    key: str
    job_id: str
    model: str
    backend: str
    spec: dict[str, Any]
    owner: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    requested: dict[str, Any] = field(default_factory=dict)
    attempt: int = 1
    name: str | None = None
    host: str = ""
    history: tuple[dict[str, Any], ...] = ()
    found_empty: bool = False

    def with_attempt(self, attempt: int, name: str | None, event: dict[str, Any]) -> JobRecord:
        return replace(self, attempt=attempt, name=name, history=(*self.history, event))

    @property
    def fallback(self) -> dict[str, Any] | None:
        """The values with which the current attempt's request differs from the first; ``None`` if it does not differ.

        See :class:`mlengine.backends.FallsBack`.
        """
        return next((event["fallback"] for event in reversed(self.history) if event.get("fallback")), None)

    @property
    def fallback_attempts(self) -> int:
        """How many attempts were made because no machines were available and a fallback was left."""
        return sum(event["event"] == "attempt" and bool(event.get("fallback")) for event in self.history)

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions of all fallbacks that attempts of this job have used."""
        found = [event["fallback"].get("region") for event in self.history if event.get("fallback")]
        return tuple(dict.fromkeys(region for region in found if region))

    @property
    def service_restarts(self) -> int:
        """How often the service has restarted the job by itself, over all attempts, as far as the wait has noticed."""
        return sum(event["event"] == SERVICE_RESTART for event in self.history)

    @property
    def restarting(self) -> bool:
        """Whether the service has restarted this attempt, and the job has not run since."""
        kinds = {SERVICE_RESTART, SERVICE_RESUMED}
        own = (event for event in reversed(self.history) if event.get("attempt") == self.attempt)
        return next((event["event"] == SERVICE_RESTART for event in own if event["event"] in kinds), False)

    def handle(self, job_dir: str) -> JobHandle | None:
        """A handle for the current attempt; ``None`` until the attempt is recorded."""
        if self.name is None:
            return None
        return JobHandle(self.backend, self.name, self.job_id, self.attempt, job_dir)

    def _check_types(self) -> None:
        """Check the types of all fields, because trainers can write to the job dir, too.

        :raises TypeError: a field has the wrong type.
        """
        for name, kind in _RECORD_TYPES.items():
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} is a {type(getattr(self, name)).__name__}")
        if not all(isinstance(event, dict) for event in self.history):
            raise TypeError("an event of the history is not an object")

    def to_bytes(self) -> bytes:
        return json.dumps({**asdict(self), "history": list(self.history)}, indent=2, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a record from the content of ``job.json``.

        :raises MlengineError: the data is not a claim of mlengine.
        """
        try:
            raw = json.loads(data)
            raw["history"] = tuple(raw.get("history", ()))
            record = cls(**raw)
            record._check_types()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise MlengineError(
                f"job.json is not the record of a job: {error}",
                hint="choose another job dir; if mlengine created this one, restore job.json from a backup",
            ) from error
        return record


_RECORD_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("key", "job_id", "model", "backend", "host"), str),
    **dict.fromkeys(("spec", "owner", "inputs", "requested"), dict),
    "attempt": int,
    "name": (str, type(None)),
}
