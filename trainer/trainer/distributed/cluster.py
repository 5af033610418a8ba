"""The cluster and this process's replica, from ``TF_CONFIG``.

``{"cluster": {"chief": [..], "worker": [..], "ps": [..]}, "task": {"type": "worker", "index": 0}}``. ML Engine called
the chief ``master``; both names are accepted. Without ``TF_CONFIG``, or if it has only a chief, training runs in one
process.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer.errors import UsageError

CHIEF_NAMES = ("chief", "master")
TRAINERS = (*CHIEF_NAMES, "worker")
ROLES = (*TRAINERS, "ps", "evaluator")


@dataclass(frozen=True)
class Cluster:
    """The replicas of a job.

    :param tasks: addresses by job name, as in TensorFlow's ``ClusterSpec``.
    :param job: this replica's job name.
    """

    tasks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    job: str = "chief"
    index: int = 0

    @property
    def is_chief(self) -> bool:
        return self.job in CHIEF_NAMES

    @property
    def name(self) -> str:
        return f"{'chief' if self.is_chief else self.job}/{self.index}"

    @property
    def ps_count(self) -> int:
        return len(self.tasks.get("ps", ()))

    @property
    def trainers(self) -> tuple[tuple[str, int], ...]:
        """``(job, index)`` of every replica that computes gradients, the chief first."""
        found = [(job, index) for job in TRAINERS for index in range(len(self.tasks.get(job, ())))]
        return tuple(found) or ((self.job if self.is_chief else "chief", 0),)

    @property
    def trainer_index(self) -> int:
        """This replica's index among the trainers."""
        return self.trainers.index((self.job, self.index))

    @property
    def chief_job(self) -> str:
        return next((job for job in CHIEF_NAMES if job in self.tasks), "chief")

    @property
    def has_evaluator(self) -> bool:
        return bool(self.tasks.get("evaluator"))

    @property
    def distributed(self) -> bool:
        return self.ps_count > 0

    @property
    def steps_each(self) -> int:
        """The number of steps that a trainer has in flight.

        With parameter servers, one step computes while another waits for them.
        """
        return 2 if self.distributed else 1

    @property
    def steps_under_way(self) -> int:
        """The number of steps that all trainers together have in flight."""
        return self.steps_each * len(self.trainers)

    @property
    def servers(self) -> dict[str, list[str]]:
        """The addresses for TensorFlow's ``ClusterSpec``, without the evaluator, which only reads checkpoints."""
        return {job: list(addresses) for job, addresses in self.tasks.items() if job != "evaluator"}

    def address(self, job: str, index: int) -> str:
        return self.tasks[job][index]

    def threads(self) -> int:
        """The cores for this replica: those of the machine, divided among the trainers on it."""
        cores = usable_cores()
        if self.job not in self.tasks:
            return cores
        host = _host(self.address(self.job, self.index))
        here = sum(_host(self.address(job, index)) == host for job, index in self.trainers)
        return max(1, cores // max(1, here))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Cluster:
        """Read ``TF_CONFIG``.

        :raises UsageError: it is invalid.
        """
        text = (os.environ if environ is None else environ).get("TF_CONFIG", "").strip()
        if not text:
            return cls()
        try:
            config = json.loads(text)
            tasks = {str(job): _addresses(job, nodes) for job, nodes in (config.get("cluster") or {}).items() if nodes}
            task = config.get("task") or {}
            job, index = str(task.get("type", "chief")), int(task.get("index", 0))
        except (ValueError, AttributeError, TypeError) as error:
            raise UsageError(f"TF_CONFIG does not describe a TensorFlow cluster: {error}") from error
        cluster = cls(tasks, job, index)
        cluster._check()
        return cluster

    def _check(self) -> None:
        unknown = [job for job in (*self.tasks, self.job) if job not in ROLES]
        if unknown:
            raise UsageError(f"TF_CONFIG has the role {unknown[0]!r}; known are {', '.join(ROLES)}")
        chiefs = sum(len(self.tasks.get(job, ())) for job in CHIEF_NAMES)
        if self.tasks and chiefs != 1:
            raise UsageError(f"TF_CONFIG has {chiefs or 'no'} chief tasks; a cluster has one, named chief or master")
        if self.index < 0 or (self.index >= self._count() and not self._is_outside()):
            raise UsageError(f"TF_CONFIG says this is {self.job}/{self.index}, but its cluster has no such task")

    def _count(self) -> int:
        """The number of replicas with this replica's job name. A process without a cluster is its only chief."""
        return len(self.tasks.get(self.job, ())) if self.tasks else int(self.is_chief)

    def _is_outside(self) -> bool:
        """Whether this is an evaluator that is not part of the cluster."""
        return self.job == "evaluator" and self.job not in self.tasks


def usable_cores() -> int:
    """The cores that this process may use, regardless of other replicas on the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_listening(address: str, timeout: float = 1.0) -> bool:
    """Whether a process accepts connections at ``host:port``. A suspended process does too."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout) as probe:
            # If nothing listens on the port, the kernel may assign it to the probe, which then connects to itself.
            return bool(probe.getsockname() != probe.getpeername())
    except OSError:
        return False


def _addresses(job: str, nodes: Any) -> tuple[str, ...]:
    """The addresses of a job's tasks.

    :raises UsageError: ``nodes`` is not a list of ``host:port``.
    """
    if not isinstance(nodes, list):
        raise UsageError(f"TF_CONFIG: the tasks of {job!r} must be a list of host:port, not {nodes!r}")
    for node in nodes:
        host, _, port = str(node).rpartition(":")
        if not isinstance(node, str) or not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise UsageError(f"TF_CONFIG: {node!r}, a task of {job!r}, is not host:port")
    return tuple(nodes)


def _host(address: str) -> str:
    return address.rpartition(":")[0]
