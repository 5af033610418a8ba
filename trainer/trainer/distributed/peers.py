"""The other replicas as seen by a trainer: waiting for them, detecting their loss, and giving up after the patience."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.config import Config
from trainer.distributed import graph as graphs
from trainer.distributed.cluster import Cluster, is_listening
from trainer.distributed.graph import Graph
from trainer.distributed.session import POLL, open_session
from trainer.distributed.signals import Stop
from trainer.errors import ReplicaLostError, StorageError
from trainer.files import manifest
from trainer.files.checkpoint import Checkpoints
from trainer.files.storage import open_store

log = logging.getLogger(__name__)
errors = tf.errors
LOG_SECONDS = 5.0
CHECKPOINT_POLL = 0.05


class Peers:
    """The parameter servers and the chief, as seen by the chief or a worker.

    :param check_stop: called with the session (or ``None``) in each wait; raises if this replica is asked to stop.
    """

    def __init__(
        self,
        config: Config,
        cluster: Cluster,
        *,
        graph: Graph,
        target: str,
        proto: Any,
        stop: Stop,
        check_stop: Callable[[Any], None],
    ) -> None:
        self._config, self._cluster, self._graph = config, cluster, graph
        self._target, self._proto = target, proto
        self._stop, self._check_stop = stop, check_stop
        self._progress = time.monotonic()  # time of the last step
        self._released = -1  # step of the checkpoint after which this worker no longer waits for the next one

    def made_progress(self) -> None:
        """Restart the patience, because a step was made."""
        self._progress = time.monotonic()

    def wait_for_servers(self) -> bool:
        """Wait until every parameter server listens. Returns ``False`` if the job is done and they have exited.

        The chief checks for a finished job only after the patience: if the whole job is being restarted, the parameter
        servers may still be starting, and they would wait for a chief that has exited.

        :raises ReplicaLostError: a parameter server did not listen within the patience.
        """
        logged = 0.0
        while missing := self._missing():
            self._check_stop(None)
            names = self._names(missing)
            if time.monotonic() - logged > LOG_SECONDS:
                logged = time.monotonic()
                log.info("waiting for %s (%.0f of %.0f s)", names, self._waited(), self._config.patience)
                if not self._cluster.is_chief and not self._is_up(self._cluster.chief_job, 0) and self._job_is_done():
                    return False
            if self._cluster.is_chief and self._patience_is_over() and self._job_is_done():
                return False
            self._check_patience(names)
            self._stop.sleep(POLL)
        return True

    def open_session(self) -> Any:
        """Open a session, and wait until every parameter server has responded."""
        began = time.monotonic()
        return open_session(self._target, self._graph, self._proto, lambda: self._check_opening(began))

    def wait_for_chief(self, session: Any) -> None:
        """Wait until the chief has initialised the parameter servers."""
        logged = 0.0
        awaited = f"{self._chief} to initialise the parameter servers"
        while self._graph.read_phase(session) == graphs.NEW:
            self._check_stop(None)
            if time.monotonic() - logged > LOG_SECONDS:
                logged = time.monotonic()
                log.info("waiting for %s (%.0f of %.0f s)", awaited, self._waited(), self._config.patience)
            self._check_patience(awaited)
            self._stop.sleep(POLL)

    def wait_for_checkpoint(self, session: Any, saved: int, step: int, read_state: Callable[[np.ndarray], int]) -> int:
        """Keep a worker within one checkpoint interval of the newest checkpoint. Returns that checkpoint's step.

        If a parameter server is lost, so are all steps since the newest checkpoint. A worker that is one interval ahead
        therefore waits for the chief to write the next one. It does not wait for a chief that has exited, or that has
        hung for longer than a step may take.

        :param read_state: stores the counters, and returns the newest checkpoint's step.
        """
        began, logged = time.monotonic(), False
        while saved != self._released and self._is_ahead(step, saved):
            waited = time.monotonic() - began
            if waited > self._config.step_timeout or not self._is_up(self._cluster.chief_job, 0):
                log.warning("step %d: not waiting for the chief, whose newest checkpoint is of %d", step, saved)
                self._released = saved
            elif waited > 1 and not logged:
                logged = True
                log.info("step %d: waiting for the chief's checkpoint; the newest is of %d", step, saved)
            self._check_stop(session)
            self._stop.sleep(CHECKPOINT_POLL)
            state = session.run(self._graph.state)
            saved, step = read_state(state), max(step, int(state[0]))
        return saved

    def report_loss(self, session: Any, error: Any, step: int) -> None:
        """Log which parameter servers were lost.

        :raises ReplicaLostError: no step was made within the patience.
        """
        if isinstance(error, errors.DeadlineExceededError):
            log.warning("no answer within %.0f s from %s", self._config.step_timeout, self._silent(session))
        reason = str(error.message)[:200]
        log.warning("lost the parameter servers after step %d (%s): %s", step, type(error).__name__, reason)
        self._check_patience("parameter servers that answer")

    def _check_opening(self, began: float) -> None:
        """Give up opening a session if a server has exited, or hangs for longer than a step may take."""
        self._check_stop(None)
        if missing := self._missing():
            raise errors.UnavailableError(None, None, f"{self._names(missing)} went away")
        if time.monotonic() - began > self._config.step_timeout:
            raise errors.DeadlineExceededError(None, None, "no session could be opened")

    def _is_ahead(self, step: int, saved: int) -> bool:
        """Whether the steps in flight may go beyond one checkpoint interval."""
        more = min(self._cluster.steps_under_way, self._config.checkpoint // 2)
        return step < self._config.max_steps and step + more > saved + self._config.checkpoint

    def _job_is_done(self) -> bool:
        """Whether the job has finished without this replica: the last checkpoint and the exported model exist."""
        try:
            exported = manifest.read(open_store(self._config.model_dir), "")
            newest = max((saved.step for saved in Checkpoints(open_store(self._config.log_dir)).list()), default=-1)
        except StorageError as error:
            log.warning("it is not known whether the training is over: %s", error)
            return False
        done = exported is not None and min(exported["step"], newest) >= self._config.max_steps
        if done:
            log.info("the chief has exported the model and the parameter servers have ended; nothing is left to do")
        return done

    def _silent(self, session: Any) -> str:
        """The parameter servers that do not respond; without a session, all of them."""
        if session is None:
            return " or ".join(self._names([index]) for index in range(self._cluster.ps_count))
        silent = []
        for index, known in enumerate(self._graph.phases_known):
            try:
                session.run(known, seconds=2.0)
            except errors.OpError:
                silent.append(index)
        return self._names(silent) or "a parameter server that answers again"

    def _missing(self) -> list[int]:
        return [index for index in range(self._cluster.ps_count) if not self._is_up("ps", index)]

    @property
    def _chief(self) -> str:
        return f"chief/0 at {self._cluster.address(self._cluster.chief_job, 0)}"

    def _names(self, servers: Iterable[int]) -> str:
        return ", ".join(f"ps/{index} at {self._cluster.address('ps', index)}" for index in servers)

    def _is_up(self, job: str, index: int) -> bool:
        return is_listening(self._cluster.address(job, index))

    def _waited(self) -> float:
        return time.monotonic() - self._progress

    def _patience_is_over(self) -> bool:
        return self._waited() > self._config.patience

    def _check_patience(self, awaited: str) -> None:
        if self._patience_is_over():
            raise ReplicaLostError(f"gave up after {self._waited():.0f} s of waiting for {awaited}")
