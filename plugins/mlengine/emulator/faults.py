"""Scripted faults: failures of a network or a service that the emulator reproduces on request.

A script is a list of faults. Each fault applies to a number of calls of its method, in the order of the list. Faults
that were not triggered are reported, because a test that scripts such a fault does not test it.
"""

from __future__ import annotations

import difflib
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator.http import HTTP_STATUS
from mlengine.emulator.log_limits import Quotas

ACTIONS: Mapping[str, str] = {
    "status": "respond with `status` (a google.rpc.Code name) without executing the call",
    "reset": "reset the connection without executing the call",
    "delay": "wait `seconds` before executing the call",
    "cut": "execute the call, send `bytes` bytes of the response, then reset the connection",
    "lose": "execute the call, then reset the connection without a response",
    "quota": "refuse calls beyond `per_minute` for each project with RESOURCE_EXHAUSTED, until faults are removed",
    "empty": "respond with a page token and no entries, as a search that is not complete; the token continues it",
    "lag": "omit items younger than `seconds` from a list",
    "preempt": "after a create: send SIGTERM to replica `replica` once it runs, as a preempted host does",
    "stick": "keep a created job PENDING until it is cancelled",
    "queue": "keep a created job QUEUED for `seconds`, as while a quota is in use",
    "fail": "after a create: once the job runs, end it as FAILED with `status` and `message`",
    "out-of-memory": "after a create: once the job runs, end it as the service does when `replica` runs out of memory",
    "restart": "after a create: restart the job `restarts` times: after `seconds` of RUNNING, `seconds` of PENDING",
    "stockout": "as `restart`, then end the job as FAILED for lack of machines, as when Spot VMs are pre-empted",
    "late-error": "after a create: if the job fails, show its `error` only `seconds` after the end",
}
CREATES = ("CreateCustomJob", "CreateTrainingPipeline", "projects.jobs.create")
LISTS = ("ListCustomJobs", "ListTrainingPipelines", "ListModelVersions", "ListLogEntries", "projects.jobs.list")
METHODS = (
    *CREATES,
    *LISTS,
    *("GetCustomJob", "DeleteCustomJob", "CancelCustomJob", "GetOperation", "ListOperations"),
    *("GetTrainingPipeline", "DeleteTrainingPipeline", "CancelTrainingPipeline"),
    *("UploadModel", "GetModel", "UpdateModel", "MergeVersionAliases"),
    *("projects.jobs.get", "projects.jobs.patch", "projects.jobs.cancel"),
)
_VERTEX_CREATES = tuple(name for name in CREATES if name.startswith("Create"))
_ONLY = {
    "lag": LISTS,
    "empty": ("ListLogEntries",),
    **dict.fromkeys(("preempt", "stick", "queue"), CREATES),
    **dict.fromkeys(("fail", "out-of-memory", "restart", "stockout", "late-error"), _VERTEX_CREATES),
}


@dataclass(frozen=True)
class Fault:
    """One scripted fault.

    :param method: one of :data:`METHODS`, or ``*`` for every method.
    :param action: one of :data:`ACTIONS`.
    :param times: the number of calls that the fault applies to.
    :param skip: the number of calls before the first one that the fault applies to.
    :param per_minute: the calls per minute of a quota, which applies to all calls.
    """

    method: str
    action: str
    times: int = 1
    skip: int = 0
    status: str = "UNAVAILABLE"
    message: str = "The service is currently unavailable."
    seconds: float = 1.0
    bytes: int = 0
    per_minute: int = 60
    replica: str = "chief-0"
    restarts: int = 1

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read a fault from JSON.

        :raises EmulatorApiError: a field is missing, unknown or invalid.
        """
        if not isinstance(data, Mapping):
            raise _invalid(data, "it is not a mapping", "give method and action")
        names = [field.name for field in fields(cls)]
        for name in data:
            if name not in names:
                raise _invalid(data, f"unknown field {name!r}", f"use {', '.join(names)}")
        for name in ("method", "action"):
            if name not in data:
                raise _invalid(data, f"it has no {name}", "give method and action")
        for name, value in data.items():
            _check_field(data, name, value)
        method, allowed = data["method"], _ONLY.get(data["action"], METHODS)
        if method != "*" and method not in allowed:
            raise _invalid(data, f"action {data['action']} does not apply to {method}", f"use {', '.join(allowed)}")
        return cls(**data)

    @property
    def refusal(self) -> tuple[str, str] | None:
        """The status and message of a call that the fault rejects; ``None`` if it does not reject calls."""
        if self.action == "quota":  # the service sends no Retry-After
            metric = "quota metric 'Read requests' and limit 'Read requests per minute'"
            return "RESOURCE_EXHAUSTED", f"Quota exceeded for {metric}: {self.per_minute}."
        return (self.status, self.message) if self.action == "status" else None

    def applies_to(self, method: str) -> bool:
        """Whether a call of ``method`` can trigger the fault."""
        return self.method == method or (self.method == "*" and method in _ONLY.get(self.action, METHODS))


def read_faults(data: Any, source: str) -> list[Fault]:
    """Read a list of faults.

    :param source: the origin of the list, for error messages.
    :raises EmulatorApiError: the data is not a list, or contains an invalid fault.
    """
    if not isinstance(data, list):
        raise EmulatorApiError(f"{source}: not a list of faults", hint="write '- {method: …, action: …}' items")
    return [Fault.from_json(item) for item in data]


class FaultScript:
    """The remaining faults, and all calls so far. Thread-safe."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._remaining: list[Fault] = list(faults)
        self._quotas = Quotas()
        self.calls: list[str] = []

    def add(self, *faults: Fault) -> None:
        """Append faults to the script."""
        with self._lock:
            self._remaining += faults

    def match(self, method: str, project: str = "") -> list[Fault]:
        """Record a call of ``method`` and return the faults that it triggers, at most one of each action.

        :param project: the project whose quotas the call counts towards.
        """
        triggered: list[Fault] = []
        with self._lock:
            self.calls.append(method)
            for place, fault in enumerate(self._remaining):
                if not fault.applies_to(method) or fault.action in {other.action for other in triggered}:
                    continue
                if fault.action == "quota":
                    if not self._quotas.take(method, project, fault.per_minute):
                        triggered.append(fault)
                elif fault.skip:
                    self._remaining[place] = replace(fault, skip=fault.skip - 1)
                else:
                    triggered.append(fault)
                    self._remaining[place] = replace(fault, times=fault.times - 1)
            self._remaining = [fault for fault in self._remaining if fault.times > 0]
        return triggered

    def unused(self) -> list[Fault]:
        """The faults that were triggered less often than scripted. A quota need not be exceeded."""
        with self._lock:
            return [fault for fault in self._remaining if fault.action != "quota"]

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._remaining.clear()


def _is_integer(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "method": (lambda value: value in {"*", *METHODS}, f"one of {', '.join(METHODS)}, or *"),
    "action": (lambda value: value in set(ACTIONS), f"one of {', '.join(ACTIONS)}"),
    "times": (lambda value: _is_integer(value, 1), "an integer of 1 or more"),
    "skip": (lambda value: _is_integer(value, 0), "an integer of 0 or more"),
    "bytes": (lambda value: _is_integer(value, 0), "an integer of 0 or more"),
    "per_minute": (lambda value: _is_integer(value, 1), "an integer of 1 or more"),
    "restarts": (lambda value: _is_integer(value, 0), "an integer of 0 or more"),
    "seconds": (_is_seconds, "a number of 0 or more"),
    "status": (lambda value: value in HTTP_STATUS, f"one of {', '.join(HTTP_STATUS)}"),
    "message": (lambda value: isinstance(value, str), "a string"),
    "replica": (
        lambda value: isinstance(value, str) and re.fullmatch(r"(chief|worker|ps|evaluator)-\d+", value) is not None,
        "a replica such as chief-0 or worker-1",
    ),
}


def _check_field(data: Mapping[str, Any], name: str, value: Any) -> None:
    valid, expected = _CHECKS[name]
    try:
        accepted = valid(value)
    except TypeError:  # a list or a mapping, which cannot be in a set
        accepted = False
    if accepted:
        return
    close = difflib.get_close_matches(str(value), METHODS if name == "method" else [*ACTIONS, *HTTP_STATUS], 1)
    raise _invalid(data, f"{name} is {value!r}", f"did you mean {close[0]}?" if close else f"use {expected}")


def _invalid(data: Any, reason: str, hint: str) -> EmulatorApiError:
    shown = dict(data) if isinstance(data, Mapping) else data
    return EmulatorApiError(f"not a fault: {shown}: {reason}", hint=hint)
