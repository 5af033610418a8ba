"""Converts Vertex AI's names for a job's state, and its errors, to those of this project.

A test compares this module with the service's enum, so that a new state is noticed. Until it is handled here, a new
state is UNKNOWN, which has no consequences.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from mlengine.core import times
from mlengine.core.cluster import POOL_ROLES
from mlengine.core.job import OUT_OF_MEMORY, Failure, FailureCause, JobState

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
    "JOB_STATE_UPDATING": JobState.RUNNING,  # its resources are being changed, and it continues afterwards
    # "Some results may be missing due to errors": a partial training must not be published.
    "JOB_STATE_PARTIALLY_SUCCEEDED": JobState.FAILED,
}

_TIMES = ("createTime", "startTime", "endTime")

# The numbers are those of google.rpc.Code.
CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, INTERNAL, UNAVAILABLE = 1, 4, 8, 10, 13, 14

DEFAULT_TIMEOUT_SECONDS = 7 * 24 * 3600.0  # Scheduling.timeout: "The default is 7 days."
_DEFAULT_MAX_WAIT_SECONDS = 24 * 3600.0  # Scheduling.maxWaitDuration: "The default is 24 hours."
# The times of a job are those of the service's clock. A job that was stopped at a limit may have run a little less.
_TOLERANCE, _MOST_TOLERANCE_SECONDS = 0.02, 5.0

_REPLICA = re.compile(r"workerpool(?P<pool>\d)-(?P<index>\d+)")
# "non-zero status of 1", "… of 9(SIGKILL)": in the second form, the number is that of the signal.
_EXIT = re.compile(r"non-zero status of (?P<code>-?\d+)(?P<signal>\(SIG)?")
_RETRY_ME = frozenset({143, -15, 137, -9, 75})  # ended by the host, or the trainer asked for a retry

_STOCKOUT = re.compile(r"resources are insufficient|stockout|resource_?pool_?exhausted", re.I)
# "Limit: 0.0 in region us-central1."
_NO_QUOTA = re.compile(r"\blimit(?: is|:|=)? *0(\.0+)?(?!\.?\d)", re.I)
# The first pattern that matches the message decides. The patterns are taken from the service's messages.
_CAUSES: tuple[tuple[re.Pattern[str], FailureCause], ...] = (
    # First, as the quotas of Spot and flex-start are named "…_preemptible_…".
    (re.compile(r"quota", re.I), FailureCause.QUOTA),
    (re.compile(r"preempt|spot vm|reclaimed", re.I), FailureCause.PREEMPTED),
    (_STOCKOUT, FailureCause.QUOTA),
    (re.compile(r"timed? ?out|timeout|deadline|exceeded the maximum", re.I), FailureCause.DEADLINE),
    (re.compile(r"internal error", re.I), FailureCause.SERVICE),
)
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
    """The scheduling and the durations of a job that has ended. Times are in seconds.

    :param spot: whether the job ran on Spot VMs. When they are pre-empted, the service restarts the job up to six
        times, and then reports a stockout (documented in "Use Spot VMs", 2026).
    :param timeout: the limit of its run time; infinity for no limit.
    :param max_wait: the limit of its wait for machines. Only flex-start has it; infinity for the other strategies.
    :param waited: the time from its creation to its first start, or to its end if it never ran; ``None`` if unknown.
    :param ran: the time from its first start to its end; ``None`` if it never ran.
    """

    spot: bool = False
    timeout: float = math.inf
    max_wait: float = math.inf
    waited: float | None = None
    ran: float | None = None

    @property
    def exceeded(self) -> str | None:
        """A description of the limit at which the service cancelled the job; ``None`` if it did not reach one."""
        if self.ran is not None:
            return f"its timeout of {self.timeout:.0f} s" if _reached(self.ran, self.timeout) else None
        if self.waited is not None and _reached(self.waited, self.max_wait):
            return f"its maxWaitDuration of {self.max_wait:.0f} s"
        return None

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> Self:
        """The run of a job.

        :param job: a ``CustomJob`` that has ended.
        """
        scheduling = job.get("jobSpec", {}).get("scheduling", {})
        flexible = scheduling.get("strategy") == "FLEX_START"
        created, started, ended = (times.seconds(job[name]) if name in job else None for name in _TIMES)
        first = ended if started is None else started
        return cls(
            scheduling.get("strategy") in {"SPOT", "LOW_COST"},
            _limit(scheduling.get("timeout"), DEFAULT_TIMEOUT_SECONDS),
            _limit(scheduling.get("maxWaitDuration"), _DEFAULT_MAX_WAIT_SECONDS) if flexible else math.inf,
            None if created is None or first is None else first - created,
            None if started is None or ended is None else ended - started,
        )


def _reached(seconds: float, limit: float) -> bool:
    return seconds >= limit - min(_TOLERANCE * limit, _MOST_TOLERANCE_SECONDS)


def _limit(duration: str | None, default: float) -> float:
    """The seconds of a duration such as ``7200s``; infinity for 0, which means no limit."""
    seconds = default if duration is None else float(duration.rstrip("s"))
    return seconds or math.inf


def job_state(word: str | None) -> JobState:
    """The state for the service's name ``word``; UNKNOWN, with a warning, for an unknown name."""
    if word is None:
        return JobState.UNKNOWN
    if word not in STATES:
        log.warning("Vertex AI answered the state %s, which this version does not know; waiting on", word)
    return STATES.get(word, JobState.UNKNOWN)


def replica_name(text: str) -> str | None:
    """Our name of the replica that ``text`` names: ``worker-0`` for ``workerpool1-0``; ``None`` if it names none."""
    match = _REPLICA.search(text)
    if match is None or int(match["pool"]) >= len(POOL_ROLES):
        return None
    return f"{POOL_ROLES[int(match['pool'])].value}-{match['index']}"


def final_state(state: JobState, run: Run) -> JobState:
    """The final state of a job: EXPIRED if the service cancelled it at a limit, which the service calls CANCELLED."""
    return JobState.EXPIRED if state is JobState.CANCELLED and run.exceeded else state


def failure(state: JobState, error: Mapping[str, Any] | None, run: Run | None = None) -> Failure | None:
    """The reason why a job ended without success; ``None`` if it succeeded.

    :param state: the state that :func:`final_state` returned.
    :param error: the job's ``google.rpc.Status``.
    :param run: the scheduling and the durations of the job, if known.
    """
    if state not in {JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}:
        return None
    run = run or Run()
    message = str((error or {}).get("message") or "")
    exit_code = _EXIT.search(message)
    status = None if exit_code is None else int(exit_code["code"]) * (-1 if exit_code["signal"] else 1)
    cause = _cause(state, error or {}, status, run)
    if state is JobState.EXPIRED and run.exceeded:
        message = f"Vertex AI cancelled the job at {run.exceeded}"
    return Failure(
        cause=cause,
        message=message or f"Vertex AI ended the job as {state.value} and gave no reason",
        replica=replica_name(message),
        exit_code=status,
    )


def quota_is_zero(error: Mapping[str, Any]) -> bool:
    """Whether a quota is exceeded because its limit is 0.

    :param error: a ``google.rpc.Status``, whose details may have the limit: ``ErrorInfo`` as ``quota_limit_value``,
        ``QuotaFailure`` as ``quotaValue``.
    """
    values: list[Any] = []
    for detail in error.get("details") or ():
        if isinstance(detail, Mapping):
            values.append((detail.get("metadata") or {}).get("quota_limit_value"))
            values += [violation.get("quotaValue") for violation in detail.get("violations") or ()]
    message = _first_line(error)
    return any(str(value) == "0" for value in values) or (
        "quota" in message.lower() and bool(_NO_QUOTA.search(message))
    )


def _cause(state: JobState, error: Mapping[str, Any], status: int | None, run: Run) -> FailureCause:
    if state is not JobState.FAILED:
        return FailureCause.CANCELLED if state is JobState.CANCELLED else FailureCause.DEADLINE
    message = _first_line(error)
    if OUT_OF_MEMORY.search(message):
        # The exit code does not matter: it may be 137 or 9, as of a pre-empted machine, or that of an exceeded quota.
        return FailureCause.TRAINER
    if status is not None:
        # The replica's exit code is more specific than the message.
        return FailureCause.PREEMPTED if status in _RETRY_ME else FailureCause.TRAINER
    return _cause_without_exit(error, message, run)


def _cause_without_exit(error: Mapping[str, Any], message: str, run: Run) -> FailureCause:
    if run.spot and _STOCKOUT.search(message):
        return FailureCause.PREEMPTED
    if quota_is_zero(error):
        return FailureCause.NO_QUOTA
    by_code = _CODES.get(int(error.get("code") or 0), FailureCause.TRAINER)
    return next((cause for pattern, cause in _CAUSES if pattern.search(message)), by_code)


def _first_line(error: Mapping[str, Any]) -> str:
    """The service's message, without the last lines of a replica's log that may follow it and must not be matched."""
    return str(error.get("message") or "").partition("\n")[0]
