"""Vertex AI's words for a job's state and its end, as this project's.

A test walks the service's own enum, so that a state added to it is noticed; until it is handled here, it is
UNKNOWN, which decides nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from mlengine.core.job import Failure, FailureCause, JobState
from mlengine.core.spec import Role

log = logging.getLogger(__name__)

STATES: Mapping[str, JobState] = {
    "JOB_STATE_UNSPECIFIED": JobState.UNKNOWN,
    "JOB_STATE_QUEUED": JobState.QUEUED,
    "JOB_STATE_PENDING": JobState.PREPARING,
    "JOB_STATE_RUNNING": JobState.RUNNING,
    "JOB_STATE_SUCCEEDED": JobState.SUCCEEDED,
    "JOB_STATE_FAILED": JobState.FAILED,
    "JOB_STATE_CANCELLING": JobState.CANCELLING,
    "JOB_STATE_CANCELLED": JobState.CANCELLED,
    "JOB_STATE_PAUSED": JobState.PAUSED,
    "JOB_STATE_EXPIRED": JobState.EXPIRED,
    "JOB_STATE_UPDATING": JobState.RUNNING,  # its resources are being changed; it goes on after
    # "Some results may be missing due to errors": a partial training must not be published.
    "JOB_STATE_PARTIALLY_SUCCEEDED": JobState.FAILED,
}

# The order of the worker pools is their role.
POOL_ROLES: tuple[Role, ...] = (Role.CHIEF, Role.WORKER, Role.PS, Role.EVALUATOR)
POOL_NAMES: Mapping[Role, str] = {role: f"workerpool{place}" for place, role in enumerate(POOL_ROLES)}

# google.rpc.Code
CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, INTERNAL, UNAVAILABLE = 1, 4, 8, 10, 13, 14

_REPLICA = re.compile(r"workerpool(?P<pool>\d)-(?P<index>\d+)")
_EXIT = re.compile(r"non-zero status of (?P<code>-?\d+)")
_RETRY_ME = frozenset({143, -15, 137, -9, 75})  # stopped or killed by the host, or the trainer asked for a retry

# What the service says of a replica that used too much memory, with exit code 137 or with code 8.
_MEMORY = re.compile(r"oom.?killed|out[- ]of[- ]memory", re.I)
# The first that matches the message decides; the patterns are from the service's messages.
_CAUSES: tuple[tuple[re.Pattern[str], FailureCause], ...] = (
    (re.compile(r"preempt|spot vm|reclaimed", re.I), FailureCause.PREEMPTED),
    (re.compile(r"quota|resources are insufficient|stockout|resource_?pool_?exhausted", re.I), FailureCause.QUOTA),
    (re.compile(r"timed? ?out|timeout|deadline|exceeded the maximum", re.I), FailureCause.DEADLINE),
    (re.compile(r"internal error", re.I), FailureCause.SERVICE),
)
_STOCKOUT = re.compile(r"resources are insufficient|stockout|resource_?pool_?exhausted", re.I)
_CODES: Mapping[int, FailureCause] = {
    CANCELLED: FailureCause.CANCELLED,
    DEADLINE_EXCEEDED: FailureCause.DEADLINE,
    RESOURCE_EXHAUSTED: FailureCause.QUOTA,
    ABORTED: FailureCause.PREEMPTED,
    INTERNAL: FailureCause.SERVICE,
    UNAVAILABLE: FailureCause.SERVICE,
}


@dataclass(frozen=True)
class Run:
    """How a job was scheduled, and how long it ran.

    :param spot: on Spot VMs. Their pre-emption is reported as a stockout (documented in "Use Spot VMs", 2026).
    :param timeout: of the job, in seconds; ``None`` if it has none.
    :param seconds: from its start to its end; ``None`` if unknown.
    """

    spot: bool = False
    timeout: float | None = None
    seconds: float | None = None

    @property
    def timed_out(self) -> bool:
        """The service cancels a job at its timeout; its final state is then CANCELLED, not EXPIRED."""
        return self.timeout is not None and self.seconds is not None and self.seconds >= self.timeout

    @classmethod
    def of(cls, job: Mapping[str, Any], seconds: float | None) -> Self:
        """:param seconds: from the job's start to its end."""
        scheduling = job.get("jobSpec", {}).get("scheduling", {})
        timeout = str(scheduling.get("timeout") or "")
        limit = float(timeout[:-1]) if timeout.endswith("s") and float(timeout[:-1]) > 0 else None
        return cls(scheduling.get("strategy") == "SPOT", limit, seconds)


def job_state(word: str | None) -> JobState:
    """The state for the service's ``word``; UNKNOWN, with a warning, for an unknown one."""
    if word is None:
        return JobState.UNKNOWN
    if word not in STATES:
        log.warning("Vertex AI answered the state %s, which this version does not know; waiting on", word)
    return STATES.get(word, JobState.UNKNOWN)


def replica_name(text: str) -> str | None:
    """``workerpool1-0`` → ``worker-0``, anywhere in ``text``; ``None`` if no replica is named."""
    match = _REPLICA.search(text)
    if match is None or int(match["pool"]) >= len(POOL_ROLES):
        return None
    return f"{POOL_ROLES[int(match['pool'])].value}-{match['index']}"


def failure(state: JobState, error: Mapping[str, Any] | None, run: Run | None = None) -> Failure | None:
    """Why a job ended without success: from its final state and its ``google.rpc.Status``.

    :param run: how it was scheduled and how long it ran, if known.
    """
    if state not in {JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}:
        return None
    run = run or Run()
    message = str((error or {}).get("message") or "")
    code = int((error or {}).get("code") or 0)
    exit_code = _EXIT.search(message)
    status = int(exit_code["code"]) if exit_code else None
    cause = _cause(state, code, message, status, run)
    if cause is FailureCause.DEADLINE and state is JobState.CANCELLED:
        message = f"the job reached its timeout of {run.timeout:.0f} s and was cancelled by Vertex AI"
    return Failure(
        cause=cause,
        message=message or f"Vertex AI ended the job as {state.value} and gave no reason",
        replica=replica_name(message),
        exit_code=status,
    )


def _cause(state: JobState, code: int, message: str, status: int | None, run: Run) -> FailureCause:
    if state is JobState.CANCELLED:
        return FailureCause.DEADLINE if run.timed_out else FailureCause.CANCELLED
    if state is JobState.EXPIRED:
        return FailureCause.DEADLINE
    # The last lines of a replica's log may follow; they are not the service's message.
    message = message.partition("\n")[0]
    if _MEMORY.search(message):
        return FailureCause.OUT_OF_MEMORY
    if status is not None:
        # The replica's exit code is more specific than the message.
        return FailureCause.PREEMPTED if status in _RETRY_ME else FailureCause.TRAINER
    if run.spot and _STOCKOUT.search(message):
        return FailureCause.PREEMPTED  # of a Spot VM, after the service has restarted the job several times
    for pattern, cause in _CAUSES:
        if pattern.search(message):
            return cause
    return _CODES.get(code, FailureCause.TRAINER)
