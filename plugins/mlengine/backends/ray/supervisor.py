"""Runs the replicas of one job on a Ray cluster, from the reservation to the job's outcome.

1. A bundle is reserved for each replica (QUEUED), and an actor is created in each.
2. The trainer's environment is built once on each node (PREPARING).
3. Each replica gets a port on its node, then all are started: parameter servers first, the chief last (RUNNING).
4. A replica that fails is restarted in its place, within the limits of ``restart_policy``.
5. If an actor or a node is lost, addresses change: all replicas are ended and started again, from step 2, when Ray has
   replaced the node. The trainers continue from their checkpoint. A lost node may still run, without a connection to
   the cluster: the restart waits until its replicas have ended themselves.
6. The job ends when the chief ends; workers have some time to finish. Then all replicas are ended.

Runs in the driver. All waits check the stop conditions.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import getLogger
from typing import Any

from mlengine.backends.local import restart_policy
from mlengine.backends.local.logs import TAIL_LINES
from mlengine.backends.local.outcome import Outcome
from mlengine.backends.ray.cluster import Cluster, LostError
from mlengine.backends.ray.journal import Journal
from mlengine.backends.ray.output import Lines
from mlengine.backends.ray.record import Stored
from mlengine.backends.ray.replica_host import DRIVER_TIMEOUT_SECONDS
from mlengine.core.job import Failure, FailureCause, JobState
from mlengine.core.spec import Role

log = getLogger(__name__)

_START_ORDER = (Role.PS, Role.WORKER, Role.EVALUATOR, Role.CHIEF)
_POLL_SECONDS = 0.5
_DRAIN_SECONDS = 0.1
_NO_ANSWER_SECONDS = 60.0  # an actor that does not answer for so long is lost
_MARGIN_SECONDS = 5.0
_END_SECONDS = 20.0  # beyond the grace period, for the guard and for the last output


class EndedError(Exception):
    """The job has its outcome. Never leaves the supervisor."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


@dataclass
class Replica:
    """One replica, as the driver sees it."""

    role: Role
    index: int
    actor: Any
    node: str = ""
    address: str = ""
    running: bool = False
    restarts: int = 0
    exit_code: int | None = None
    restart_at: float | None = None
    began: float = 0.0
    poll: Any = None
    asked: float = 0.0
    contact: float = 0.0
    lines: Lines = field(default_factory=Lines)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))

    @property
    def name(self) -> str:
        return f"{self.role.value}-{self.index}"

    def to_json(self) -> dict[str, Any]:
        return {
            "replica": self.name,
            "node": self.node,
            "address": self.address or None,
            "running": self.running,
            "restarts": self.restarts,
            "exit_code": self.exit_code,
        }


@dataclass
class Supervisor:
    """Runs one job.

    :param orders: polled; returns the outcome if the job is to end now (cancelled, or a deadline).
    :param wait: sleeps for at most the given seconds; returns early when there are orders.
    :param training_begins: called when the replicas start for the first time.
    :param record: called with the installed packages, when the environment is built.
    :param chief_seconds: run time of the chief's last process; set when it ends with exit code 0.
    """

    stored: Stored
    cluster: Cluster
    journal: Journal
    orders: Callable[[], Outcome | None]
    wait: Callable[[float], None]
    training_begins: Callable[[], None]
    record: Callable[[Sequence[str]], None]
    replicas: list[Replica] = field(default_factory=list)
    chief_seconds: float = 0.0
    _started: bool = False
    _lost: str = ""

    def run(self) -> Outcome:
        """Run until the job has an outcome and none of its processes is left."""
        limit = self.stored.settings.max_cluster_restarts
        losses = 0
        try:
            self._reserve()
            while True:
                try:
                    self._run_once()
                except LostError as lost:
                    losses += 1
                    if losses > limit:
                        return Outcome.because(
                            FailureCause.LOST, f"replicas were lost {losses} times; the last: {lost}"
                        )
                    self.journal.say(f"lost {lost}; restarting all replicas, restart {losses} of {limit}")
                    detail = f"waiting for Ray to replace a node: lost {lost}"
                    self.journal.state(JobState.PREPARING, detail, restarting=self._started)
                    quiet = self._quiet_at()
                    self._discard()
                    while time.monotonic() < quiet:
                        self._obey()
                        self.wait(_POLL_SECONDS)
        except EndedError as ended:
            return ended.outcome
        finally:
            self._discard()
            self.cluster.release()

    def _quiet_at(self) -> float:
        """When the replicas on lost nodes have ended: the monotonic time."""
        grace = self.stored.settings.termination_grace_seconds
        gone = [replica.contact for replica in self.replicas if replica.began and not self.cluster.alive(replica.node)]
        return max(gone) + DRIVER_TIMEOUT_SECONDS + grace + _MARGIN_SECONDS if gone else 0.0

    def _reserve(self) -> None:
        self.cluster.reserve()
        last = ""
        while not self.cluster.reserved(0.0 if not last else _POLL_SECONDS):
            self._obey()
            reason = self.cluster.reason()
            if reason != last:
                last = reason
                self.journal.state(JobState.QUEUED, reason)
            self.wait(_POLL_SECONDS)
        self._obey()

    def _run_once(self) -> None:
        """:raises EndedError: with the job's outcome. :raises LostError: a replica is gone."""
        spec, record = self.stored.submission.spec, self.stored.to_bytes()
        if not self._started:
            self.journal.state(JobState.PREPARING, "starting an actor for each replica")
        self.replicas = [
            Replica(role, index, self.cluster.create(number, record, role.value, index))
            for number, (role, index) in enumerate(spec.replicas)
        ]
        for replica, node in self._call(self.replicas, "where"):
            replica.node = node
        for node, digest in self._prepare().items():
            there = [replica for replica in self.replicas if replica.node == node]
            for replica, address in self._call(there, "take", digest):
                if address is None:
                    raise LostError(f"{replica.name}: the environment on {node} was removed")
                replica.address = address
        if not self._started:
            self._started = True
            self.training_begins()
            self.journal.state(JobState.RUNNING, "starting", started=time.time())
        for role in _START_ORDER:
            self._start([replica for replica in self.replicas if replica.role is role])
        self._report()
        while True:
            self._supervise()

    def _prepare(self) -> dict[str, str]:
        """Build the environment on each node; returns its digest there, by node."""
        by_node = {replica.node: replica for replica in self.replicas}
        builders = list(by_node.values())
        nodes = ", ".join(by_node)
        if not self._started:
            self.journal.state(JobState.PREPARING, f"preparing the environment on {nodes}")
        self._call(builders, "prepare")
        for replica in builders:
            replica.running = True
        prefix = len(builders) > 1
        while any(replica.running for replica in builders):
            self._obey()
            for replica, poll in self._polled(builders):
                for text in replica.lines.add(poll["output"], ended=poll["exit_code"] is not None):
                    self.journal.say(f"{replica.node}: {text}" if prefix else text)
                if poll["exit_code"] is not None:
                    replica.running, replica.exit_code = False, poll["exit_code"]
            self._check_lost()
        return self._built(builders)

    def _built(self, builders: Sequence[Replica]) -> dict[str, str]:
        digests: dict[str, str] = {}
        pythons: dict[str, str] = {}
        packages: list[str] = []
        for replica, result in self._call(builders, "prepared"):
            if "digest" not in result:
                cause = FailureCause.TRAINER if result.get("retryable") is False else FailureCause.SERVICE
                message = result.get("error") or (
                    f"the process that builds the environment ended with exit code {replica.exit_code}"
                )
                raise EndedError(Outcome.because(cause, f"{replica.node}: {message}"))
            digests[replica.node] = str(result["digest"])
            pythons[str(result["python"])] = replica.node
            packages = list(result["packages"])
        if len(pythons) > 1:
            found = ", ".join(f"{version} on {node}" for version, node in sorted(pythons.items()))
            message = f"the nodes of the Ray cluster have different versions of Python: {found}"
            raise EndedError(Outcome.because(FailureCause.SERVICE, message))
        if not self._started:
            self.record(packages)
        return digests

    def _start(self, replicas: Sequence[Replica]) -> None:
        addresses: dict[str, list[str]] = {}
        for replica in self.replicas:
            if replica.address:
                addresses.setdefault(replica.role.value, []).append(replica.address)
        self._call(replicas, "start", addresses)
        for replica in replicas:
            replica.running, replica.exit_code, replica.restart_at = True, None, None
            replica.began = replica.contact = time.monotonic()
            at = replica.address or replica.node
            self.journal.say(f"{replica.name} started on {at}" + (", restart" if replica.restarts else ""))

    def _supervise(self) -> None:
        """One round: output, exit codes, restarts."""
        if (order := self.orders()) is not None:
            if order.state is JobState.CANCELLED:
                self.journal.state(JobState.CANCELLING, "ending the job's processes")
            self._end()
            raise EndedError(order)
        for replica, poll in self._polled(self.replicas):
            self._take_output(replica, poll)
            if poll["exit_code"] is not None:
                replica.running = False
                if poll["port_taken"]:
                    raise LostError(f"{replica.name}: another program uses its port {replica.address}")
                self._ended(replica, poll["exit_code"])
        self._check_lost()
        now = time.monotonic()
        due = [replica for replica in self.replicas if replica.restart_at is not None and replica.restart_at <= now]
        if due:
            self._start(due)
            self._report()

    def _ended(self, replica: Replica, code: int) -> None:
        """Handle the end of a replica. :raises EndedError: the job ends with it."""
        settings, meaning = self.stored.settings, restart_policy.meaning(code)
        replica.exit_code = code
        self.journal.say(f"{replica.name} ended with exit code {code}: {meaning.text}")
        if code == 0:
            if replica.role is Role.CHIEF:
                self.chief_seconds = time.monotonic() - replica.began
                self._end(linger=settings.linger_seconds)
                raise EndedError(Outcome(JobState.SUCCEEDED, "the chief ended with exit code 0"))
            self._report()
            return
        if time.monotonic() - replica.began > restart_policy.EARNED_SECONDS:
            replica.restarts = 0
        allowed = restart_policy.restarts_allowed(replica.role, code, settings)
        if replica.restarts < allowed:
            pause = restart_policy.backoff(replica.restarts, settings)
            replica.restarts += 1
            replica.restart_at = time.monotonic() + pause
            self.journal.say(f"{replica.name} restarts in {pause:.1f} s: restart {replica.restarts} of {allowed}")
        elif replica.role is Role.EVALUATOR:
            self.journal.say(f"{replica.name} has no restarts left; training continues without it")
        else:
            self._end()
            after = f" after {replica.restarts} restarts" if replica.restarts else ""
            message = f"{replica.name} {meaning.text}, exit code {code}{after}"
            raise EndedError(Outcome.failed(Failure(meaning.cause, message, replica.name, code, tuple(replica.tail))))
        self._report()

    def _take_output(self, replica: Replica, poll: Mapping[str, Any]) -> None:
        for text in replica.lines.add(poll["output"], ended=poll["exit_code"] is not None):
            self.journal.line(replica.name, text)
            if text.strip():
                replica.tail.append(text[:500])

    def _polled(self, replicas: Sequence[Replica]) -> list[tuple[Replica, Any]]:
        """Poll the replicas that run. At most one poll of each is on its way; takes about half a second.

        A replica that is gone, or does not answer, is in ``_lost`` afterwards: the answers of the others count first.
        """
        begun = time.monotonic()
        for replica in replicas:
            if replica.running and replica.poll is None:
                replica.poll, replica.asked = replica.actor.poll.remote(), time.monotonic()
        asked = {replica.poll: replica for replica in replicas if replica.poll is not None}
        found = []
        for reference in self.cluster.ready(list(asked), _POLL_SECONDS):
            replica, asked[reference].poll = asked[reference], None
            try:
                found.append((replica, self.cluster.result(reference)))
                replica.contact = time.monotonic()
            except LostError as error:
                replica.running = False
                self._lost = f"{replica.name} on {replica.node}: {error}"
        for replica in asked.values():
            if replica.poll is not None and time.monotonic() - replica.asked > _NO_ANSWER_SECONDS:
                replica.running = False
                self._lost = f"{replica.name} on {replica.node}: no answer for {_NO_ANSWER_SECONDS:.0f} s"
        if not any(poll["output"] for _, poll in found):
            self.wait(max(0.0, _POLL_SECONDS - (time.monotonic() - begun)))
        return found

    def _check_lost(self) -> None:
        """:raises LostError: a replica was lost since the last call."""
        lost, self._lost = self._lost, ""
        if lost:
            raise LostError(lost)

    def _call(self, replicas: Sequence[Replica], method: str, *arguments: Any) -> list[tuple[Replica, Any]]:
        """Call a method of replicas' actors, and wait for all.

        :raises LostError: an actor is gone. :raises EndedError: the job is to end.
        """
        calls = {getattr(replica.actor, method).remote(*arguments): replica for replica in replicas}
        while len(self.cluster.ready(list(calls), _POLL_SECONDS)) < len(calls):
            self._obey()
        results = []
        for reference, replica in calls.items():
            try:
                results.append((replica, self.cluster.result(reference)))
            except LostError as error:
                raise LostError(f"{replica.name}{replica.node and f' on {replica.node}'}: {error}") from error
        return results

    def _obey(self) -> None:
        if (order := self.orders()) is not None:
            raise EndedError(order)

    def _end(self, *, linger: float = 0.0) -> None:
        """End all replicas; returns when none is running, or does not answer any more.

        :param linger: seconds that workers have to end by themselves first.
        """
        for replica in self.replicas:
            replica.restart_at = None
        self._drain([replica for replica in self.replicas if replica.role is Role.WORKER], linger)
        for replica in self.replicas:
            if replica.running:
                replica.actor.end.remote()
        self._drain(self.replicas, self.stored.settings.termination_grace_seconds + _END_SECONDS)

    def _drain(self, replicas: Sequence[Replica], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while any(replica.running for replica in replicas) and time.monotonic() < deadline:
            # All of them: those that do not end yet have output, too.
            for replica, poll in self._polled(self.replicas):
                self._take_output(replica, poll)
                if poll["exit_code"] is not None:
                    replica.running, replica.exit_code = False, poll["exit_code"]
                    self.journal.say(f"{replica.name} ended with exit code {replica.exit_code}")
            if self._lost:
                self.journal.say(f"lost {self._lost}")
                self._lost = ""
            time.sleep(_DRAIN_SECONDS)

    def _discard(self) -> None:
        """End all replicas and their actors."""
        if any(replica.running for replica in self.replicas):
            self._end()
        left = [replica.actor.clean.remote() for replica in self.replicas if not replica.running]
        self.cluster.ready(left, 5.0)
        self.cluster.kill([replica.actor for replica in self.replicas])
        self.replicas = []

    def _report(self) -> None:
        """Update the job's state: how many replicas run."""
        running = sum(replica.running for replica in self.replicas)
        done = sum(replica.exit_code == 0 for replica in self.replicas)
        waiting = [
            f"{it.name} (exit code {it.exit_code}, restart {it.restarts})"
            for it in self.replicas
            if it.restart_at is not None
        ]
        detail = f"{running} of {len(self.replicas)} replicas run"
        if done:
            detail += f", {done} done"
        if waiting:
            detail += f"; waiting for {', '.join(waiting)}"
        replicas = [replica.to_json() for replica in self.replicas]
        self.journal.state(JobState.RUNNING, detail, replicas=replicas, restarting=False)
