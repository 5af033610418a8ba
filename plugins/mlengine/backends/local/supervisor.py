"""Starts the replicas of one job, restarts them within limits, and ends the job when the chief ends.

1. Ports are reserved and all replicas are started: parameter servers first, so that they listen early, the chief last.
2. A replica that fails is restarted after a pause, as ``restart_policy`` defines.
3. The job ends when the chief ends. Workers have some time to finish, as they still need the parameter servers; then
   all replicas get SIGTERM, and later SIGKILL.
4. The job fails when a replica has used up its restarts. An evaluator is an exception: it does not take part in
   training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path

from mlengine.backends.local import listening, logs, ports, restart_policy
from mlengine.backends.local.gpu_reservation import Reservation
from mlengine.backends.local.gpus import variables
from mlengine.backends.local.outcome import Outcome
from mlengine.backends.local.record import Job, Stored
from mlengine.backends.local.replica import Replica
from mlengine.backends.local.replica_env import arguments, replica_env
from mlengine.core.cluster import has_cluster
from mlengine.core.job import Failure, FailureCause, JobState
from mlengine.core.plural import number_of
from mlengine.core.spec import Role
from mlengine.runtime.rendezvous import CHIEF_PORTS
from mlengine.runtime.state_dir import is_full

log = getLogger("mlengine.local")

_ADDRESSED = (Role.CHIEF, Role.WORKER, Role.PS)
_START_ORDER = (Role.PS, Role.WORKER, Role.EVALUATOR, Role.CHIEF)
_PORT_CHECK_SECONDS = 3.0
_MOST_CLUSTERS = 4  # the most times that a cluster is started if its ports are taken


@dataclass
class Supervisor:
    """Runs the replicas of one job until it ends.

    :param environments: for each role, the interpreter and the variables that its replicas share.
    :param gpus: the GPUs of each replica that has any.
    :param end_requested: polled; returns the outcome if the job is to end now (cancelled, deadline, SIGTERM).
    :param wait: sleeps for at most the given seconds; returns early if a child process ends. Its second argument is
        the set of pids that this class reaps itself.
    :param report: called on every change of state, with a message and the replicas.
    :param chief_seconds: the run time of the chief's last process; set when it ends with exit code 0.
    """

    job: Job
    stored: Stored
    environments: Mapping[Role, tuple[Path, dict[str, str]]]
    gpus: Reservation
    end_requested: Callable[[], Outcome | None]
    wait: Callable[[float, set[int]], None]
    report: Callable[[str, list[Replica]], None]
    replicas: list[Replica] = field(default_factory=list)
    chief_seconds: float = 0.0
    _silent: list[str] = field(default_factory=list)
    _next_port_check: float = 0.0

    def run(self) -> Outcome:
        """Run the replicas until the job has an outcome and none of its processes is left."""
        for _ in range(_MOST_CLUSTERS):
            taken = ports.take(len(CHIEF_PORTS) + self._addressed(), self.job.state_dir / "locks")
            try:
                outcome = self._run_once(taken)
            finally:
                self._end(0.0)
                for port in taken:
                    port.give_back()
            if outcome is not None:
                return outcome
        return Outcome.because(FailureCause.SERVICE, f"a port was taken {_MOST_CLUSTERS} times by another program")

    def _addressed(self) -> int:
        spec = self.stored.submission.spec
        return sum(role in _ADDRESSED for role, _ in spec.replicas) if has_cluster(spec) else 0

    def _run_once(self, taken: list[ports.Port]) -> Outcome | None:
        """Run the cluster once. ``None`` if another program took a port: the cluster must restart on other ports."""
        self.replicas = self._make(taken)
        for replica in sorted(self.replicas, key=lambda it: _START_ORDER.index(it.role)):
            if (outcome := self.end_requested()) is not None:
                return outcome
            try:
                replica.start()
            except OSError as error:
                return Outcome.because(FailureCause.SERVICE, f"{replica.name} cannot be started: {error}")
            log.info("%s started, pid %s%s%s", replica.name, replica.identity and replica.identity.pid,
                     f", {replica.port.address}" if replica.port else "",
                     "".join(f", {it.gpu}, {it.gpu.id}" for it in replica.gpus))  # fmt: skip
        self._report()
        while True:
            if (outcome := self.end_requested()) is not None:
                self._end(self.stored.settings.termination_grace_seconds)
                return outcome
            for replica in self.replicas:
                code = replica.poll()
                if code is None:
                    continue
                if code and (port := replica.taken_port()) is not None:
                    log.warning("%s: another program uses port %s; restarting the cluster on other ports",
                                replica.name, port.number)  # fmt: skip
                    self._end(self.stored.settings.termination_grace_seconds)
                    return None
                outcome = self._ended(replica, code)
                if outcome is not None:
                    return outcome
            self._restart_due()
            self._check_listeners()
            self._wait(0.5)

    def _make(self, taken: list[ports.Port]) -> list[Replica]:
        spec = self.stored.submission.spec
        chief_ports, free = taken[: len(CHIEF_PORTS)], taken[len(CHIEF_PORTS) :]
        addressed = [replica for replica in spec.replicas if replica[0] in _ADDRESSED] if free else []
        port_of = dict(zip(addressed, free, strict=True))
        addresses = {
            role: [port.address for (owner, _), port in port_of.items() if owner is role] for role in _ADDRESSED
        }
        return [
            self._replica(role, index, addresses, port_of.get((role, index)), chief_ports)
            for role, index in spec.replicas
        ]

    def _replica(
        self,
        role: Role,
        index: int,
        addresses: dict[Role, list[str]],
        port: ports.Port | None,
        chief_ports: list[ports.Port],
    ) -> Replica:
        submission = self.stored.submission
        scratch = self.job.scratch(f"{role.value}-{index}")
        gpus = self.gpus.get((role, index), [])
        python, base = self.environments[role]
        env = replica_env(
            base,
            submission,
            addresses,
            role=role,
            index=index,
            scratch=scratch,
            chief_ports=[port.number for port in chief_ports],
            devices=variables(submission.spec.pool(role), [it.gpu for it in gpus]),
        )
        command = [str(python), "-m", submission.spec.module, *arguments(submission, env)]
        name = f"{role.value}-{index}"
        stderr = self.job.stderr_log(name) if self.stored.separate_stderr else None
        more = chief_ports if role is Role.CHIEF else ()
        return Replica(role, index, command, env, scratch, self.job.log(name), port, stderr, tuple(more), gpus)

    def _ended(self, replica: Replica, code: int) -> Outcome | None:
        """Handle the end of a replica. Return the job's outcome; ``None`` if the job continues."""
        reason = restart_policy.exit_reason(code)
        log.info("%s ended with exit code %s: %s", replica.name, code, reason.text)
        if code == 0:
            if replica.role is Role.CHIEF:
                self.chief_seconds = time.monotonic() - replica.began
                self._end(self.stored.settings.termination_grace_seconds, linger=self.stored.settings.linger_seconds)
                return Outcome(JobState.SUCCEEDED, "the chief ended with exit code 0")
            self._report()
            return None
        if time.monotonic() - replica.began > restart_policy.EARNED_SECONDS:
            replica.restarts = 0
        allowed = restart_policy.restarts_allowed(replica.role, code, self.stored.settings)
        if replica.restarts < allowed:
            pause = restart_policy.backoff(replica.restarts, self.stored.settings)
            replica.restarts += 1
            replica.restart_at = time.monotonic() + pause
            log.info("%s restarts in %.1f s: restart %s of %s", replica.name, pause, replica.restarts, allowed)
            self._report()
            return None
        if replica.role is Role.EVALUATOR:
            log.warning("%s has no restarts left; training continues without it", replica.name)
            self._report()
            return None
        full = is_full(self.job.root)  # before processes end, and their temporary files are deleted
        self._end(self.stored.settings.termination_grace_seconds)
        return self._failed(replica, code, reason, full=full)

    def _failed(self, replica: Replica, code: int, reason: restart_policy.ExitReason, *, full: bool) -> Outcome:
        after = f" after {replica.restarts} restarts" if replica.restarts else ""
        message, cause = f"{replica.name} {reason.text}, exit code {code}{after}", reason.cause
        if full:
            # The log may lack the error message, which could not be written either.
            message, cause = f"{message}; the disk of {self.job.state_dir} is full", FailureCause.SERVICE
        # An error message is on stderr; if there is none, the last lines of stdout may show the cause.
        tail = (logs.last_lines(replica.stderr_log) if replica.stderr_log else ()) or logs.last_lines(replica.log)
        return Outcome.failed(Failure(cause, message, replica.name, code, tail))

    def _restart_due(self) -> None:
        now = time.monotonic()
        for replica in self.replicas:
            if replica.restart_at is not None and replica.restart_at <= now:
                replica.start()
                log.info("%s restarted, pid %s", replica.name, replica.identity and replica.identity.pid)
                self._report()

    def _check_listeners(self) -> None:
        """Report the replicas whose port has no listener. If no port has one, the framework does not use the ports."""
        if time.monotonic() < self._next_port_check or not any(it.port for it in self.replicas):
            return
        self._next_port_check = time.monotonic() + _PORT_CHECK_SECONDS
        known = listening.ports()
        silent = [it for it in self.replicas if it.port is not None and it.exit_code != 0]
        names = [it.name for it in silent if known is not None and it.port and it.port.number not in known]
        if len(names) == len(silent):
            names = []
        if names != self._silent:
            self._silent = names
            if names:
                log.info("not listening yet: %s", ", ".join(names))
            self._report()

    def _report(self) -> None:
        """Report the job's state, with a status line that says how many replicas are running."""
        running = sum(replica.running for replica in self.replicas)
        done = sum(replica.exit_code == 0 for replica in self.replicas)
        waiting = [f"{it.name} (exit code {it.exit_code}, restart {it.restarts})" for it in self.replicas if it.waiting]
        detail = f"{running} of {number_of(len(self.replicas), 'replica')} running"
        if done:
            detail += f", {done} done"
        if waiting:
            detail += f"; waiting for {', '.join(waiting)}"
        if self._silent:
            detail += f"; not listening: {', '.join(self._silent)}"
        for it in self.replicas:
            if it.gpus:
                detail += f"; {it.name} on {', '.join(reserved.gpu.name for reserved in it.gpus)}"
        self.report(detail, self.replicas)

    def _end(self, grace: float, *, linger: float = 0.0) -> None:
        """End all replicas, and return when none is running.

        :param linger: the seconds that workers have to end by themselves first.
        """
        for replica in self.replicas:
            replica.restart_at = None
        self._await([it for it in self.replicas if it.role is Role.WORKER], linger)
        for replica in self.replicas:
            replica.terminate()
        self._await(self.replicas, grace)
        for replica in self.replicas:
            if replica.running and grace:
                log.warning("%s did not end within %.0f s of SIGTERM: sending SIGKILL", replica.name, grace)
            replica.kill()
        self._await(self.replicas, 30.0)

    def _await(self, replicas: list[Replica], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while any(replica.running for replica in replicas):
            for replica in self.replicas:
                code = replica.poll()
                if code is not None:
                    log.info("%s ended with exit code %s", replica.name, code)
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._wait(min(0.5, left))

    def _wait(self, seconds: float) -> None:
        self.wait(seconds, {it.process.pid for it in self.replicas if it.process is not None})
