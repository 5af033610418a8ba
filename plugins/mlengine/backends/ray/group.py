"""The replicas of one job on the cluster, and the calls to their actors: create, call, poll, end.

All decisions about the job are made in :mod:`mlengine.backends.ray.supervisor`. This module runs in the driver.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlengine.backends.local.logs import TAIL_LINES
from mlengine.backends.local.outcome import Outcome
from mlengine.backends.ray import bundles
from mlengine.backends.ray.cluster import Cluster, LostError
from mlengine.backends.ray.journal import Journal
from mlengine.backends.ray.output import Lines
from mlengine.backends.ray.record import Stored
from mlengine.backends.ray.replica_host import DRIVER_TIMEOUT_SECONDS
from mlengine.backends.ray.settings import RaySettings
from mlengine.core.spec import Role
from mlengine.runtime.extras import ACCELERATOR_TYPE

POLL_SECONDS = 0.5
_DRAIN_SECONDS = 0.1
_CLEAN_SECONDS = 5.0
_NO_ANSWER_SECONDS = 60.0  # an actor that does not answer for so long is lost
_MARGIN_SECONDS = 5.0
_END_SECONDS = 20.0  # in addition to the grace period, for the guard and for the last output


def unattended_seconds(settings: RaySettings) -> float:
    """The longest time in seconds that a replica may run after its driver can no longer reach it."""
    return DRIVER_TIMEOUT_SECONDS + settings.termination_grace_seconds + _MARGIN_SECONDS


class EndedError(Exception):
    """The job has its outcome. Only the supervisor handles this error."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


@dataclass
class Replica:
    """One replica, as the driver sees it.

    :param accelerator: the name of its accelerator; "" if it has none.
    :param running: whether its process runs, as far as the driver knows.
    :param restart_at: monotonic time of the next start, while a restart is pending.
    :param began: monotonic time of its last start.
    :param contact: monotonic time of its last answer.
    :param starting: whether a start has been requested and not confirmed: its process may still run for
        :func:`unattended_seconds` from now.
    :param poll: the call that its actor has not answered yet; ``asked`` is the monotonic time of that call.
    """

    role: Role
    index: int
    actor: Any
    accelerator: str = ""
    node: str = ""
    address: str = ""
    running: bool = False
    restarts: int = 0
    exit_code: int | None = None
    restart_at: float | None = None
    began: float = 0.0
    contact: float = 0.0
    starting: bool = False
    poll: Any = None
    asked: float = 0.0
    lines: Lines = field(default_factory=Lines)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))

    @property
    def name(self) -> str:
        return f"{self.role.value}-{self.index}"

    @property
    def place(self) -> tuple[str, str]:
        """The node and the accelerator of the replica. Replicas with the same place share an environment."""
        return self.node, self.accelerator

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
class Group:
    """All replicas of one job; the chief is first.

    :param end_requested: polled; returns the outcome if the job is to end now (cancelled, or a deadline).
    :param wait: sleeps for at most the given seconds; returns early when the job is to end.
    """

    stored: Stored
    cluster: Cluster
    journal: Journal
    end_requested: Callable[[], Outcome | None]
    wait: Callable[[float], None]
    replicas: list[Replica] = field(default_factory=list)
    _lost: str = ""
    _before: dict[str, tuple[str, float]] = field(default_factory=dict)  # by replica: node and time of its end

    def create(self) -> None:
        """Create an actor for each replica, and return when all actors run.

        :raises LostError: a node was lost meanwhile.
        :raises EndedError: the job is to end.
        """
        record, spec = self.stored.to_bytes(), self.stored.submission.spec
        accelerators = bundles.accelerators(spec, self.stored.settings.resources)
        self.replicas = [
            Replica(
                role,
                index,
                self.cluster.create(number, record, role.value, index),
                accelerators[number].get(ACCELERATOR_TYPE, ""),
            )
            for number, (role, index) in enumerate(spec.replicas)
        ]
        for replica, node in self.call(self.replicas, "where"):
            replica.node = node

    def call(self, replicas: Sequence[Replica], method: str, *arguments: Any) -> list[tuple[Replica, Any]]:
        """Call a method of the replicas' actors, and wait for all results.

        :raises LostError: an actor is gone.
        :raises EndedError: the job is to end.
        """
        calls = {getattr(replica.actor, method).remote(*arguments): replica for replica in replicas}
        while len(self.cluster.ready(list(calls), POLL_SECONDS)) < len(calls):
            self.check_ended()
        results = []
        for reference, replica in calls.items():
            try:
                results.append((replica, self.cluster.result(reference)))
            except LostError as error:
                raise LostError(f"{replica.name}{replica.node and f' on {replica.node}'}: {error}") from error
        return results

    def poll(self, replicas: Sequence[Replica], pause: float = POLL_SECONDS) -> list[tuple[Replica, Any]]:
        """Poll the replicas that run, and return their answers, the chief's first.

        The call takes about ``pause`` seconds, unless there is output. At most one poll of each replica is pending. A
        replica that is gone, or does not answer, is reported by :meth:`check_lost`, so that the answers of the others
        are handled first.
        """
        begun = time.monotonic()
        for replica in replicas:
            if replica.running and replica.poll is None:
                replica.poll, replica.asked = replica.actor.poll.remote(), time.monotonic()
        asked = {replica.poll: replica for replica in replicas if replica.poll is not None}
        found = []
        for reference in self.cluster.ready(list(asked), POLL_SECONDS):
            replica, asked[reference].poll = asked[reference], None
            try:
                found.append((replica, self.cluster.result(reference)))
                replica.contact = time.monotonic()
            except LostError as error:
                replica.running = False
                self.lose(f"{replica.name} on {replica.node}: {error}")
        for replica in asked.values():
            if replica.poll is not None and time.monotonic() - replica.asked > _NO_ANSWER_SECONDS:
                replica.running = False
                self.lose(f"{replica.name} on {replica.node}: no answer for {_NO_ANSWER_SECONDS:.0f} s")
        if not any(poll["output"] for _, poll in found):
            self.wait(max(0.0, pause - (time.monotonic() - begun)))
        return sorted(found, key=lambda pair: pair[0].role is not Role.CHIEF)

    def lose(self, what: str) -> None:
        """Note that a replica is lost, for :meth:`check_lost`."""
        self._lost = what

    def check_lost(self) -> None:
        """Check whether a replica was lost.

        :raises LostError: a replica was lost since the last call.
        """
        lost, self._lost = self._lost, ""
        if lost:
            raise LostError(lost)

    def check_ended(self) -> None:
        """Check whether the job is to end.

        :raises EndedError: the job is to end.
        """
        if (outcome := self.end_requested()) is not None:
            raise EndedError(outcome)

    def output(self, replica: Replica, poll: Any) -> None:
        """Log the output of a replica."""
        for text in replica.lines.add(poll["output"], ended=poll["exit_code"] is not None):
            self.journal.line(replica.name, text)
            if text.strip():
                replica.tail.append(text[:500])

    def end(self, *, linger: float = 0.0) -> None:
        """End all replicas, and return when each has ended or no longer answers.

        :param linger: the seconds that workers have to end by themselves first.
        """
        for replica in self.replicas:
            replica.restart_at = None
        self._drain([replica for replica in self.replicas if replica.role is Role.WORKER], linger)
        for replica in self.replicas:
            if replica.running:
                replica.actor.end.remote()
        self._drain(self.replicas, self.stored.settings.termination_grace_seconds + _END_SECONDS)

    def discard(self, *, clean: bool) -> None:
        """End all replicas and their actors.

        :param clean: whether to remove the replicas' files from the nodes. If they are kept, a replica that starts
            again on its node finds its scratch directory.
        """
        if any(replica.running for replica in self.replicas):
            self.end()
        self._remember()
        if clean:
            left = [replica.actor.clean.remote() for replica in self.replicas if not replica.running]
            self.cluster.ready(left, _CLEAN_SECONDS)
        self.cluster.kill([replica.actor for replica in self.replicas])
        self.replicas = []

    def wait_for_lost_replicas(self) -> None:
        """Wait until no earlier process of a replica can be running on the node that it had before.

        A node that cannot be reached may still run: its replicas end themselves when the driver no longer calls them.
        For a replica that stays on its node, a lock ensures the same:
        :meth:`~mlengine.backends.ray.replica_host.ReplicaHost.take`.

        :raises EndedError: the job is to end.
        """
        until = 0.0
        for replica in self.replicas:
            node, ends = self._before.get(replica.name, (replica.node, 0.0))
            if node != replica.node:
                until = max(until, ends)

        def pause() -> None:
            self.check_ended()
            self.wait(POLL_SECONDS)

        self._wait_until(until, pause)

    def wait_for_unreachable(self) -> None:
        """Wait until no process of a replica can be running, including on nodes that cannot be reached."""
        until = max((ends for _, ends in self._before.values()), default=0.0)
        self._wait_until(until, lambda: time.sleep(POLL_SECONDS))

    def _wait_until(self, moment: float, pause: Callable[[], None]) -> None:
        """Wait until the replicas on lost nodes have ended.

        :param moment: the monotonic time by which they have ended.
        """
        if (left := moment - time.monotonic()) > 0:
            self.journal.say(f"waiting {left:.0f} s until the replicas on lost nodes have ended")
        while time.monotonic() < moment:
            pause()

    def _remember(self) -> None:
        """Record the time by which each replica that has not reported its end must have ended."""
        for replica in self.replicas:
            if not replica.began:
                continue  # the record of an earlier group is still valid
            if replica.exit_code is not None:
                self._before.pop(replica.name, None)
            else:
                last = time.monotonic() if replica.starting else replica.contact
                self._before[replica.name] = (replica.node, last + unattended_seconds(self.stored.settings))

    def _drain(self, replicas: Sequence[Replica], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while any(replica.running for replica in replicas) and time.monotonic() < deadline:
            # All replicas are polled: those that are not ending yet have output, too.
            for replica, poll in self.poll(self.replicas):
                self.output(replica, poll)
                if poll["exit_code"] is not None:
                    replica.running, replica.exit_code = False, poll["exit_code"]
                    self.journal.say(f"{replica.name} ended with exit code {replica.exit_code}")
            if self._lost:
                self.journal.say(f"lost {self._lost}")
                self._lost = ""
            time.sleep(_DRAIN_SECONDS)
