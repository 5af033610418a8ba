"""What an exit code means, who is started again, and how soon. The table in docs/local-backend.md is this one.

A negative code is the signal that ended the process; 128 + n is how a shell says the same.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from mlengine.backends.local.settings import Settings
from mlengine.core.job import FailureCause
from mlengine.core.spec import Role

EX_TEMPFAIL = 75
# A replica that ran this long earns its restarts back: only failures in a row count.
EARNED_SECONDS = 600.0
_LONGEST_BACKOFF = 30.0
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS}


@dataclass(frozen=True)
class Meaning:
    """:param again: whether a chief that ends so is started again.
    :param cause: what the job's failure is put down to, once restarts are used up.
    """

    text: str
    again: bool
    cause: FailureCause


def meaning(code: int) -> Meaning:
    """What the exit code of a replica says."""
    number = -code if code < 0 else code - 128 if code in {129, 130, 132, 133, 134, 135, 136, 137, 139, 143, 159} else 0
    if number:
        return _of_signal(number)
    if code == 0:
        return Meaning("done", again=False, cause=FailureCause.TRAINER)
    if code == EX_TEMPFAIL:
        return Meaning("asked to be started again (EX_TEMPFAIL)", again=True, cause=FailureCause.PREEMPTED)
    texts = {1: "ended with an error", 2: "refused its arguments", 126: "cannot be run", 127: "was not found"}
    return Meaning(texts.get(code, "ended with an error of its own"), again=False, cause=FailureCause.TRAINER)


def _of_signal(number: int) -> Meaning:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL:
        text = f"was killed ({name}): by hand, or by the system for want of memory"
        return Meaning(text, again=True, cause=FailureCause.PREEMPTED)
    if number in _CRASHES:
        return Meaning(f"crashed in native code ({name})", again=True, cause=FailureCause.TRAINER)
    return Meaning(f"was stopped ({name})", again=True, cause=FailureCause.PREEMPTED)


def restarts_allowed(role: Role, code: int, settings: Settings) -> int:
    """How many restarts in a row a replica of ``role`` that ended with ``code`` may have had before this one."""
    if role is Role.CHIEF:
        return settings.max_chief_restarts if meaning(code).again else 0
    return settings.max_restarts


def backoff(restarts: int, settings: Settings) -> float:
    """Seconds to wait before the next start, after so many restarts."""
    return float(min(_LONGEST_BACKOFF, settings.restart_backoff_seconds * 2**restarts))
