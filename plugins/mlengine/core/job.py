"""What a job is: its key, its id, its states, and the record that claims it.

The states are ML Engine's own words. A backend maps every state of its service to one of them; a state that a service
invents later is ``UNKNOWN``: non-terminal, so that nothing is decided by a word nobody has read.
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
    """The life of a job."""

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
    """Why a job ended without success: decides whether attempt n+1 is made."""

    TRAINER = "trainer"  # the trainer's own error: trying again would pay for the same failure
    PREEMPTED = "preempted"  # told to stop by its host, after saving (exit code 143 or SIGTERM)
    LOST = "lost"  # its launcher or machine went away
    QUOTA = "quota"
    SERVICE = "service"  # the training service's own error
    DEADLINE = "deadline"
    CANCELLED = "cancelled"

    @property
    def retryable(self) -> bool:
        return self in {FailureCause.PREEMPTED, FailureCause.LOST, FailureCause.QUOTA, FailureCause.SERVICE}

    @property
    def advice(self) -> str:
        """What the reader of the failure does next; the table in ``docs/operations.md`` is this one."""
        return _ADVICE[self]


_ADVICE = {
    FailureCause.TRAINER: "read the last lines; correct the trainer, its arguments or its data, then clear `submit`",
    FailureCause.PREEMPTED: "nothing, until `max_attempts` is used up; then clear `submit`, or use machines that stay",
    FailureCause.LOST: "see that the machine is up and has room; then clear `submit`",
    FailureCause.QUOTA: "ask for fewer or other machines, or for more quota; then clear `submit`",
    FailureCause.SERVICE: "try again later: clear `submit`; the launcher's log says what the service ran into",
    FailureCause.DEADLINE: "raise the limit, or give the job fewer steps or more machines; then clear `submit`",
    FailureCause.CANCELLED: "clear `submit` to train again",
}


class Decision(StrEnum):
    """What a submission came to; the same word in log, XCom, metric, docs and UI."""

    FRESH_SUBMIT = "fresh_submit"
    REATTACHED = "reattached"
    ALREADY_SUCCEEDED = "already_succeeded"
    RESTARTED_FROM_CHECKPOINT = "restarted_from_checkpoint"
    DUPLICATE_CANCELLED = "duplicate_cancelled"
    REUSED = "reused"


# What stands in a key's `dag_id` for jobs that a person submitted at a terminal: no DAG run waits for them.
BY_HAND = frozenset({"mlengine train", "mlengine rerun"})


# Where Airflow keeps what separates runs of one name: a key of each submitting task's state store, and a Variable.
RUN_UID_KEY = "mlengine_run_uid"
INSTALLATION_VARIABLE = "mlengine_installation_id"


@dataclass(frozen=True)
class JobKey:
    """The identity of one intent to train: a retry of the same task has the same key, a cleared task another.

    :param generation: a number that a clear changes and a retry keeps. From Airflow it is the task instance's
        ``max_tries``: set once from ``retries``, raised by every clear of a task that ran, kept by retries, deferrals
        and edits of the DAG file.
    :param run_uid: separates DAG runs of the same name: one that was deleted from the one created after it, and those
        of two Airflow installations. Kept by retries and clears. Empty for jobs that are not Airflow's.

    ``digest`` is 40 hex digits, legal in a label.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    generation: int = 0
    run_uid: str = ""

    @property
    def digest(self) -> str:
        text = json.dumps([self.dag_id, self.run_id, self.task_id, self.map_index, self.generation, self.run_uid])
        return hashlib.sha256(text.encode()).hexdigest()[:40]


def make_job_id(model: str, hint: str, key: JobKey) -> str:
    """A readable job id, legal for ML Engine (letters, digits, underscore, ≤ 128) and unique to the key.

    ``hint`` is what a person looks for: the dataset version or the run's date.
    """
    words = re.sub(r"[^0-9a-zA-Z]+", "_", f"{model}_{hint}").strip("_")[:100].rstrip("_")
    if not words or not words[0].isalpha():
        words = f"j_{words}".rstrip("_")
    return f"{words}_{key.digest[:8]}"


def make_label(text: str) -> str:
    """A label value as Google's services take it: at most 63 of a-z 0-9 _ -."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower())[:63].strip("-")


@dataclass(frozen=True)
class JobHandle:
    """Where a submitted attempt is found: all that a backend needs to describe, log or cancel it.

    :param backend: the backend's registered name.
    :param name: the backend's own name of the job (a resource name, or a state dir's name).
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
    """Why an attempt failed, for people and for the retry rule.

    :param replica: ``role-index`` of the replica that failed, where one did.
    :param exit_code: its exit code; negative is the signal that ended it, as in :mod:`subprocess`.
    :param log_tail: its last log lines.
    """

    cause: FailureCause
    message: str
    replica: str | None = None
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()

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
    """One look at an attempt. Times are seconds since the epoch.

    :param detail: one line for a person: the place in the queue, what is being prepared, which replica is missing.
    """

    handle: JobHandle
    state: JobState
    detail: str = ""
    failure: Failure | None = None
    created: float | None = None
    started: float | None = None
    ended: float | None = None


@dataclass(frozen=True)
class JobRecord:
    """``job.json``: the claim on a job dir, and what became of it.

    :param key: the :class:`JobKey` digest that owns the dir.
    :param spec: the :class:`~mlengine.core.spec.TrainingSpec` as JSON: what attempt n+1 and a re-run need.
    :param owner: the fields of the :class:`JobKey`, and ``installation``, the id of the Airflow that submitted it: for
        people, and for finding earlier jobs of the same task.
    :param inputs: lineage: digests of package and dataset, and what else the caller knows.
    :param requested: the spec as JSON before the backend reduced the cluster; empty if it did not.
    :param name: the backend's name of the live attempt; ``None`` between claim and submit.
    :param host: the one host that can see its jobs, if the backend is such a one.
    :param history: what was decided when, oldest first.
    :param found_empty: the dir held nothing when it was claimed, so that all that lies in it came with the job.
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

    def handle(self, job_dir: str) -> JobHandle | None:
        """The live attempt, once it is recorded."""
        if self.name is None:
            return None
        return JobHandle(self.backend, self.name, self.job_id, self.attempt, job_dir)

    def to_bytes(self) -> bytes:
        return json.dumps({**asdict(self), "history": list(self.history)}, indent=2, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """:raises MlengineError: if the object is not a claim of this project."""
        try:
            raw = json.loads(data)
            raw["history"] = tuple(raw.get("history", ()))
            return cls(**raw)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise MlengineError(
                f"job.json is not the record of a job: {error}",
                hint="choose another job dir; if this one is mlengine's, restore job.json from a backup",
            ) from error
