"""The meaning of exit codes, the limits of restarts, and the pauses between them. docs/local-backend.md has the table.

A negative code is the signal that ended the process; a shell reports signal n as 128 + n.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Protocol

from mlengine.core.job import FailureCause
from mlengine.core.spec import Role

EX_TEMPFAIL = 75
# After a run of this length, earlier restarts no longer count: the limit is on consecutive failures.
EARNED_SECONDS = 600.0
_LONGEST_BACKOFF = 30.0
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS}


class Limits(Protocol):
    """The restart settings that each backend has that restarts replicas itself."""

    @property
    def max_restarts(self) -> int: ...
    @property
    def max_chief_restarts(self) -> int: ...
    @property
    def restart_backoff_seconds(self) -> float: ...


@dataclass(frozen=True)
class ExitReason:
    """The reason why a replica ended, according to its exit code.

    :param restartable: whether a chief is restarted after it.
    :param cause: the cause of the job's failure, when no restarts are left.
    """

    text: str
    restartable: bool
    cause: FailureCause


def exit_reason(code: int) -> ExitReason:
    """The reason that a replica's exit code stands for."""
    number = -code if code < 0 else code - 128 if code in {129, 130, 132, 133, 134, 135, 136, 137, 139, 143, 159} else 0
    if number:
        return _of_signal(number)
    if code == 0:
        return ExitReason("done", restartable=False, cause=FailureCause.TRAINER)
    if code == EX_TEMPFAIL:
        return ExitReason("asked for a restart (EX_TEMPFAIL)", restartable=True, cause=FailureCause.PREEMPTED)
    texts = {
        1: "ended with an error",
        2: "refused its arguments (mlengine adds those of job_dir_arg and dataset_arg)",
        126: "cannot be run",
        127: "was not found",
    }
    return ExitReason(texts.get(code, "ended with an error"), restartable=False, cause=FailureCause.TRAINER)


def _of_signal(number: int) -> ExitReason:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL:
        text = f"was killed ({name}): by a person, or by the system because memory ran out"
        return ExitReason(text, restartable=True, cause=FailureCause.PREEMPTED)
    if number in _CRASHES:
        return ExitReason(f"crashed in native code ({name})", restartable=True, cause=FailureCause.TRAINER)
    return ExitReason(f"was stopped ({name})", restartable=True, cause=FailureCause.PREEMPTED)


def restarts_allowed(role: Role, code: int, settings: Limits) -> int:
    """The limit of consecutive restarts for a replica of ``role`` that ended with ``code``."""
    if role is Role.CHIEF:
        return settings.max_chief_restarts if exit_reason(code).restartable else 0
    return settings.max_restarts


def backoff(restarts: int, settings: Limits) -> float:
    """The seconds to wait before the next restart."""
    return float(min(_LONGEST_BACKOFF, settings.restart_backoff_seconds * 2**restarts))
