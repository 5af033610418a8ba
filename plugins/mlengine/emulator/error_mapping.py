"""Converts a job's failure to the form of the emulated services, for clients that parse their messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlengine.core.cluster import POOL_NAMES
from mlengine.core.job import Failure, FailureCause
from mlengine.core.spec import Role
from mlengine.emulator.records import VERTEX

# google.rpc.Code
CODES: Mapping[FailureCause, int] = {
    FailureCause.TRAINER: 3,
    FailureCause.PREEMPTED: 10,
    FailureCause.LOST: 13,
    FailureCause.QUOTA: 8,
    FailureCause.NO_QUOTA: 8,
    FailureCause.SERVICE: 13,
    FailureCause.DEADLINE: 4,
    FailureCause.CANCELLED: 1,
}
# The status that the services report for a cancelled job.
CANCELLED: Mapping[str, Any] = {"code": 1, "message": "CANCELED"}
_ML_ROLES = {Role.CHIEF: "master", Role.WORKER: "worker", Role.PS: "ps", Role.EVALUATOR: "evaluator"}
_PREFIXES = {
    FailureCause.LOST: "Internal error occurred for the current attempt: ",
    FailureCause.SERVICE: "Internal error occurred for the current attempt: ",
    FailureCause.DEADLINE: "The job exceeded its timeout: ",
    FailureCause.PREEMPTED: "The machine was preempted: ",
    FailureCause.QUOTA: "Quota exceeded: ",
    FailureCause.NO_QUOTA: "Quota exceeded: ",
}


def of_failure(api: str, failure: Failure) -> dict[str, Any]:
    """The failure as ``google.rpc.Status``, with code and message.

    :param api: the API whose name for the replica is used.
    """
    if failure.cause is FailureCause.CANCELLED:
        message = str(CANCELLED["message"])
    elif failure.replica is not None and failure.exit_code is not None:
        # In a container, a process that was ended by signal N has exit code 128 + N.
        status = 128 - failure.exit_code if failure.exit_code < 0 else failure.exit_code
        message = f"The replica {_name(api, failure.replica)} exited with a non-zero status of {status}."
    else:
        message = _PREFIXES.get(failure.cause, "") + failure.message
    return {"code": CODES[failure.cause], "message": "\n".join((message, *failure.log_tail))}


def _name(api: str, replica: str) -> str:
    role, _, index = replica.rpartition("-")
    if role not in set(Role):
        return replica
    return f"{POOL_NAMES[Role(role)]}-{index}" if api == VERTEX else f"{_ML_ROLES[Role(role)]} {index}"
