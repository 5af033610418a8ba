"""Runs the replicas of one job on a Ray cluster, from the reservation to the job's outcome.

1. A bundle is reserved for each replica (QUEUED), and an actor is created in each.
2. The trainer's environment is built once on each node (PREPARING).
3. Each replica gets a port on its node, then all are started: parameter servers first, the chief last (RUNNING).
4. A replica that fails is restarted in the same actor, within the limits of ``restart_policy``.
5. If an actor or a node is lost, addresses change: all replicas are ended and started again, from step 2, when Ray has
   replaced the node. The trainers continue from their checkpoint. A lost node may still run, without a connection to
   the cluster: the restart waits until its replicas have ended themselves.
6. The job ends when the chief ends; workers have some time to finish. Then all replicas are ended.

This module runs in the driver. All waits check the stop conditions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlengine.backends.local import restart_policy
from mlengine.backends.local.outcome import Outcome
from mlengine.backends.ray import environments
from mlengine.backends.ray.cluster import LostError
from mlengine.backends.ray.group import EndedError, Group, Replica
from mlengine.core.job import Failure, FailureCause, JobState
from mlengine.core.plural import number_of
from mlengine.core.spec import Role

_START_ORDER = (Role.PS, Role.WORKER, Role.EVALUATOR, Role.CHIEF)


@dataclass
class Supervisor:
    """Runs one job.

    :param training_begins: called when the replicas start for the first time.
    :param record: called with the installed packages, when the environment is built for the first time.
    :param chief_seconds: the run time of the chief's last process; set when it ends with exit code 0.
    """

    group: Group
    training_begins: Callable[[], None]
    record: Callable[[Sequence[str]], None]
    chief_seconds: float = 0.0
    _started: bool = False

    def __post_init__(self) -> None:
        self._settings = self.group.stored.settings
        self._journal = self.group.journal
        self._chief_ports: Sequence[int] = ()

    def run(self) -> Outcome:
        """Run the replicas until the job has an outcome and none of its processes is left."""
        limit = self._settings.max_cluster_restarts
        losses = 0
        try:
            self._reserve()
            while True:
                try:
                    self._run_once()
                except LostError as lost:
                    losses += 1
                    if losses > limit:
                        message = f"replicas were lost {number_of(losses, 'time')}; the last: {lost}"
                        return Outcome.because(FailureCause.LOST, message)
                    self._journal.say(f"lost {lost}; restarting all replicas, restart {losses} of {limit}")
                    self._recover(lost)
        except EndedError as ended:
            return ended.outcome
        finally:
            self.group.discard(clean=True)
            self.group.cluster.release()
            self.group.wait_for_unreachable()

    def _recover(self, lost: LostError) -> None:
        """End all replicas that can be reached, so that the next run can start them again."""
        detail = f"waiting for Ray to replace a node: lost {lost}"
        self._journal.state(JobState.PREPARING, detail, restarting=self._started)
        self.group.discard(clean=False)

    def _reserve(self) -> None:
        cluster = self.group.cluster
        cluster.reserve()
        last = ""
        # On a cluster with free nodes, the group is complete at once, which needs no message.
        while not cluster.reserved():
            self.group.check_ended()
            reason = cluster.reason()
            if reason != last:
                last = reason
                self._journal.state(JobState.QUEUED, reason)
        self.group.check_ended()

    def _run_once(self) -> None:
        """Run all replicas until the job ends or a replica is lost.

        :raises EndedError: the job has ended; the error has its outcome.
        :raises LostError: a replica is gone.
        """
        self._preparing("starting an actor for each replica")
        self.group.create()
        nodes = sorted({replica.node for replica in self.group.replicas})
        self._preparing(f"preparing the environment on {', '.join(nodes)}")
        digests, packages = environments.build(self.group)
        self.group.wait_for_lost_replicas()
        self._take(digests)
        if not self._started:
            self._started = True
            self.record(packages)
            self.training_begins()
            self._journal.state(JobState.RUNNING, "starting", started=time.time())
        for role in _START_ORDER:
            self._start([replica for replica in self.group.replicas if replica.role is role])
        self._report()
        while True:
            self._supervise()

    def _preparing(self, detail: str) -> None:
        if not self._started:  # after a start, the state's message keeps saying what was lost
            self._journal.state(JobState.PREPARING, detail)

    def _take(self, digests: environments.Digests) -> None:
        for place, digest in digests.items():
            there = [replica for replica in self.group.replicas if replica.place == place]
            for replica, address in self.group.call(there, "take", digest):
                if address is None:
                    raise LostError(f"{replica.name}: the environment on {replica.node} was removed")
                replica.address = address
        chief = next(replica for replica in self.group.replicas if replica.role is Role.CHIEF)
        ((_, self._chief_ports),) = self.group.call([chief], "chief_ports")

    def _start(self, replicas: Sequence[Replica]) -> None:
        addresses: dict[str, list[str]] = {}
        for replica in self.group.replicas:
            if replica.address:
                addresses.setdefault(replica.role.value, []).append(replica.address)
        for replica in replicas:
            # From now on, a process of the replica may run, even if the answer never arrives.
            replica.running, replica.exit_code, replica.restart_at = True, None, None
            replica.began, replica.starting = time.monotonic(), True
        self.group.call(replicas, "start", addresses, self._chief_ports)
        for replica in replicas:
            replica.starting, replica.contact = False, time.monotonic()
            at = replica.address or replica.node
            self._journal.say(f"{replica.name} started on {at}" + (", restart" if replica.restarts else ""))

    def _supervise(self) -> None:
        """Handle the replicas' output, exit codes and restarts once."""
        if (outcome := self.group.end_requested()) is not None:
            if outcome.state is JobState.CANCELLED:
                self._journal.state(JobState.CANCELLING, "ending the job's processes")
            self.group.end()
            raise EndedError(outcome)
        answers = self.group.poll(self.group.replicas)
        # The output of all replicas is handled first, as the job may end with the first exit code.
        for replica, poll in answers:
            self.group.output(replica, poll)
        for replica, poll in answers:
            if poll["exit_code"] is None:
                continue
            replica.running = False
            if poll["port_taken"]:
                self.group.lose(f"{replica.name}: another program uses its port {replica.address}")
            else:
                self._ended(replica, poll["exit_code"])
        self.group.check_lost()
        now = time.monotonic()
        due = [one for one in self.group.replicas if one.restart_at is not None and one.restart_at <= now]
        if due:
            self._start(due)
            self._report()

    def _ended(self, replica: Replica, code: int) -> None:
        """Handle the end of a replica.

        :raises EndedError: the end of this replica ends the job.
        """
        settings, reason = self._settings, restart_policy.exit_reason(code)
        replica.exit_code = code
        self._journal.say(f"{replica.name} ended with exit code {code}: {reason.text}")
        if code == 0:
            if replica.role is Role.CHIEF:
                self.chief_seconds = time.monotonic() - replica.began
                self.group.end(linger=settings.linger_seconds)
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
            self._journal.say(f"{replica.name} restarts in {pause:.1f} s: restart {replica.restarts} of {allowed}")
        elif replica.role is Role.EVALUATOR:
            self._journal.say(f"{replica.name} has no restarts left; training continues without it")
        else:
            self.group.end()
            after = f" after {replica.restarts} restarts" if replica.restarts else ""
            message = f"{replica.name} {reason.text}, exit code {code}{after}"
            raise EndedError(Outcome.failed(Failure(reason.cause, message, replica.name, code, tuple(replica.tail))))
        self._report()

    def _report(self) -> None:
        """Update the job's state with the number of replicas that run."""
        running = sum(replica.running for replica in self.group.replicas)
        done = sum(replica.exit_code == 0 for replica in self.group.replicas)
        waiting = [
            f"{it.name} (exit code {it.exit_code}, restart {it.restarts})"
            for it in self.group.replicas
            if it.restart_at is not None
        ]
        detail = f"{running} of {number_of(len(self.group.replicas), 'replica')} running"
        if done:
            detail += f", {done} done"
        if waiting:
            detail += f"; waiting for {', '.join(waiting)}"
        replicas = [replica.to_json() for replica in self.group.replicas]
        self._journal.state(JobState.RUNNING, detail, replicas=replicas, restarting=False)
