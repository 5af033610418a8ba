"""The effects of scripted faults on one job: how long it waits, how often the service restarts it, how it ends.

The state is part of the job's record, so that it survives a restart of the emulator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from mlengine.core.cluster import POOL_NAMES
from mlengine.core.spec import Role

if TYPE_CHECKING:
    from mlengine.emulator.faults import Fault

# google.rpc.Code
CODES: Mapping[str, int] = {
    "CANCELLED": 1,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}
# The message as users of the service quote it.
_STOCKOUT = "Resources are insufficient in region: {region}. Please try a different region."
_MEMORY = "The replica {replica} ran out-of-memory and exited with a non-zero status of 9(SIGKILL)."


@dataclass(frozen=True)
class JobFaults:
    """The state of the faults of one job. Times are in seconds since the epoch.

    :param submit_at: the job waits until this time.
    :param restarts: how often the service will still restart the job, by ending its processes and waiting for machines.
    :param restarted: how often the service has already restarted the job.
    :param phase_seconds: how long the job runs before each restart and waits after it; also how long it runs before
        ``error``.
    :param runs_since: the time of the job's last start.
    :param error: the ``google.rpc.Status`` with which the job then ends as FAILED; ``None`` if it ends by itself.
    :param ending: whether the job's processes are being ended, for a restart or for the error.
    :param error_delay: how many seconds after the end of a failed job the service shows its error.
    """

    submit_at: float = 0.0
    restarts: int = 0
    restarted: int = 0
    phase_seconds: float = 0.0
    runs_since: float | None = None
    error: Mapping[str, Any] | None = None
    ending: bool = False
    error_delay: float = 0.0

    @classmethod
    def of(cls, faults: Sequence[Fault], now: float, region: str) -> Self:
        """The faults of a job that is created now.

        :param faults: the faults that the create call has triggered.
        :param region: the region for the service's messages.
        """
        planned = cls()
        for fault in faults:
            if fault.action == "queue":
                planned = replace(planned, submit_at=now + fault.seconds)
            elif fault.action == "late-error":
                planned = replace(planned, error_delay=fault.seconds)
            elif fault.action in {"restart", "stockout"}:
                planned = replace(planned, restarts=fault.restarts, phase_seconds=fault.seconds)
            error = _error(fault, region)
            if error is not None:
                planned = replace(planned, error=error)
        return planned

    def while_running(self, now: float) -> JobFaults:
        """The next state for a running job, whose processes may have to be ended now."""
        if not self.restarts and self.error is None:
            return self
        since = now if self.runs_since is None else self.runs_since
        return replace(self, runs_since=since, ending=now - since >= self.phase_seconds)

    def after_restart(self, now: float) -> JobFaults:
        """The next state after the job's processes have ended for a restart."""
        return replace(
            self,
            submit_at=now + self.phase_seconds,
            runs_since=None,
            restarts=self.restarts - 1,
            restarted=self.restarted + 1,
            ending=False,
        )


def _error(fault: Fault, region: str) -> dict[str, Any] | None:
    """The service's status for a job that a fault ends; ``None`` if the fault does not end the job."""
    if fault.action == "stockout":
        return {"code": CODES["RESOURCE_EXHAUSTED"], "message": _STOCKOUT.format(region=region)}
    if fault.action == "out-of-memory":
        role, _, index = fault.replica.rpartition("-")
        replica = f"{POOL_NAMES[Role(role)]}-{index}"
        return {"code": CODES["RESOURCE_EXHAUSTED"], "message": _MEMORY.format(replica=replica)}
    if fault.action == "fail":
        return {"code": CODES[fault.status], "message": fault.message}
    return None
