"""Scripted faults: what a network and a service do to their clients, on demand, method by method.

A script is a list of faults; each one strikes a number of calls of its method, in the order of the list, and one that
never struck is reported: a test that scripted it has not tested what it meant to.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from mlengine.core.errors import MlengineError

ACTIONS: Mapping[str, str] = {
    "status": "answer with `status` (a google.rpc.Code name); nothing is done",
    "reset": "reset the connection; nothing is done",
    "delay": "wait `seconds` before doing anything",
    "cut": "do it, send `bytes` bytes of the answer, reset the connection",
    "lose": "do it, then reset the connection without an answer",
    "lag": "a list: leave out jobs younger than `seconds`",
    "preempt": "a create: end replica `replica` with SIGTERM once it runs, as a host that is taken away does",
    "stick": "a create: the job stays PENDING until it is cancelled",
}


@dataclass(frozen=True)
class Fault:
    """
    :param method: as the log names it: ``CreateCustomJob``, ``ListCustomJobs``, ``projects.jobs.create``, …; ``*`` is
        any.
    :param action: one of :data:`ACTIONS`.
    :param times: how many calls it strikes. :param skip: how many calls it lets pass first.
    """

    method: str
    action: str
    times: int = 1
    skip: int = 0
    status: str = "UNAVAILABLE"
    message: str = "The service is currently unavailable."
    seconds: float = 1.0
    bytes: int = 0
    replica: str = "chief-0"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """:raises MlengineError: naming the field or the action that there is not."""
        unknown = set(data) - {field.name for field in fields(cls)}
        if unknown or "method" not in data or data.get("action") not in ACTIONS:
            raise MlengineError(
                f"not a fault: {dict(data)}",
                remedy=f"give method and action ({', '.join(ACTIONS)}), and what fits of "
                f"{', '.join(field.name for field in fields(cls))}",
            )
        return cls(**data)


class Script:
    """The faults that are still to come, and the calls that came. Threads share one."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._left: list[Fault] = list(faults)
        self._struck: list[Fault] = []
        self.calls: list[str] = []

    def add(self, *faults: Fault) -> None:
        with self._lock:
            self._left += faults

    def strike(self, method: str) -> list[Fault]:
        """What this call of ``method`` meets: each action once at most."""
        struck: list[Fault] = []
        with self._lock:
            self.calls.append(method)
            for place, fault in enumerate(self._left):
                if fault.method not in {method, "*"} or fault.action in {found.action for found in struck}:
                    continue
                changes = {"skip": fault.skip - 1} if fault.skip else {"times": fault.times - 1}
                if not fault.skip:
                    struck.append(fault)
                    self._struck.append(fault)
                self._left[place] = Fault(**{**asdict(fault), **changes})
            self._left = [fault for fault in self._left if fault.times > 0]
        return struck

    def unused(self) -> list[Fault]:
        """Faults that have not struck as often as they were to."""
        with self._lock:
            return list(self._left)

    def clear(self) -> None:
        with self._lock:
            self._left.clear()
