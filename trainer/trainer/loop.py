"""The training loop of a chief or a worker: connect to the parameter servers, train, and reconnect after a failure.

Start reading at :meth:`Trainer._train`, the training itself. The model is in :mod:`trainer.mnist`; the rest of this
file and :mod:`trainer.distributed` handle replicas that fail.

A replica survives the loss of any other replica:

1. A lost, restarted or hung parameter server makes ``session.run`` fail; ``--step_timeout`` limits a hang. The
   loop discards the session and waits for the parameter servers again.
2. Parameter servers report READY only after the chief has initialised them, so a worker never computes on
   uninitialised weights.
3. No wait is endless: after ``--patience`` seconds without a step, the replica logs which replica is missing and exits
   with the code that requests a restart.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import devices
from trainer.chief import Chief
from trainer.config import Config
from trainer.distributed import graph as graphs
from trainer.distributed.cluster import Cluster
from trainer.distributed.in_flight import StepsInFlight
from trainer.distributed.peers import Peers
from trainer.distributed.session import LOST, close_session, lanes, limit_threads, session_config, start_server
from trainer.distributed.signals import Stop
from trainer.errors import EXIT_ERROR, LossNotFiniteError, PreemptedError, TrainerError
from trainer.files.dataset import batches, open_dataset

log = logging.getLogger(__name__)
errors = tf.errors
PROGRESS_SECONDS = 5.0
_NOT_FINITE = re.compile(r"Tensor had .*(Inf|NaN)")  # tf.debugging.check_numerics


class Trainer:
    """A chief or a worker, in a cluster or alone."""

    def __init__(self, config: Config, cluster: Cluster, stop: Stop) -> None:
        limit_threads(config, cluster)
        dataset = open_dataset(config.dataset)
        self._data = dataset.load("train")
        log.info("dataset %s, version %s: %d examples", dataset.uri, dataset.version, len(self._data))
        config = config.with_batches_of(min(config.batch_size, len(self._data)))
        self._config, self._cluster, self._stop = config, cluster, stop
        self._chief = Chief(config, cluster, dataset) if cluster.is_chief else None
        target = start_server(config, cluster).target if cluster.distributed else ""
        compute = devices.compute_type(config.precision)
        log.info("convolutions and dense layer are computed in %s", compute.name)
        self._graph = graphs.build(
            cluster,
            learning_rate=config.learning_rate,
            steps=config.max_steps,
            seed=config.seed,
            lanes=lanes(config, cluster),
            gpu=devices.has_gpu(),
            compute=compute,
        )
        self._peers = Peers(
            config,
            cluster,
            graph=self._graph,
            target=target,
            proto=session_config(config, cluster),
            stop=stop,
            check_stop=self._check_stop,
        )
        self._steps = 0  # made by this replica
        self._step = 0  # of the whole job, as last read
        self._loss: float | None = None

    def run(self) -> None:
        """Train until ``--max_steps``, reconnecting after each failure of another replica.

        :raises ReplicaLostError: another replica was missing for longer than the patience.
        :raises LossNotFiniteError: the loss is not finite, on this or on another trainer.
        :raises PreemptedError: SIGTERM was received; the chief has saved a checkpoint.
        """
        while True:
            session = None
            try:
                if not self._peers.wait_for_servers():
                    return
                session = self._peers.open_session()
                self._join(session)
                self._train(session)
                self._finish(session)
            except LOST as error:
                if not self._cluster.distributed:
                    raise
                self._peers.report_loss(session, error, self._step)
            except TrainerError as error:
                self._report_failure(session, error)
                raise
            else:
                return
            finally:
                close_session(session)
            self._stop.sleep(1.0)

    def _train(self, session: Any) -> None:
        """Make steps until the job has ``--max_steps``."""
        graph, config = self._graph, self._config
        self._step, _, saved = map(int, session.run(graph.state))
        log.info("training from step %d, %d steps made here so far", self._step, self._steps)
        logged = time.monotonic()
        source = self._batches(self._step)
        with StepsInFlight(session, graph, self._cluster.steps_each) as in_flight:
            while self._step < config.max_steps or in_flight:
                if self._chief is None:
                    saved = self._peers.wait_for_checkpoint(session, saved, self._step, self._read_state)
                self._check_stop(session)
                while len(in_flight) < self._steps_to_start():
                    in_flight.start(*next(source))
                if not in_flight:
                    break  # the other trainers made the last steps while this one waited
                try:
                    result = in_flight.finish()
                except errors.InvalidArgumentError as error:
                    self._raise_not_finite(session, error)
                saved = self._read_state(result["state"])
                self._loss = float(result["loss"])
                self._steps += 1
                if self._chief is not None:
                    self._chief.after_step(session, graph, self._step, self._loss)
                elif time.monotonic() - logged > PROGRESS_SECONDS:
                    logged = time.monotonic()
                    log.info("step %d of %d, loss %.4f, %d here", self._step, config.max_steps, self._loss, self._steps)
        log.info("%d of %d batches were made here", self._steps, self._step)

    def _steps_to_start(self) -> int:
        """The number of steps to have in flight; one near the end, so that the trainers overshoot only a little."""
        left = self._config.max_steps - self._step
        if left > self._cluster.steps_under_way:
            return self._cluster.steps_each
        return int(left > 0)

    def _read_state(self, state: np.ndarray) -> int:
        """Store the counters that a step returned. Returns the step of the newest checkpoint.

        Two steps in flight may finish out of order, so the step never decreases.
        """
        step, trouble, saved = map(int, state)
        self._step = max(self._step, step)
        self._peers.made_progress()
        if trouble:
            self._raise_trouble(trouble)
        return saved

    def _batches(self, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches in an order that differs between trainers and after each restart."""
        seed = (self._config.seed * 1_000_003 + step) * 1_009 + self._cluster.trainer_index
        return batches(self._data, self._config.batch_size, seed)

    def _join(self, session: Any) -> None:
        if self._chief is not None:
            self._chief.join(session, self._graph)
        else:
            self._peers.wait_for_chief(session)

    def _finish(self, session: Any) -> None:
        if self._chief is None:
            return
        self._chief.finish(session, self._graph, self._loss)
        self._graph.set_phase(session, graphs.DONE)

    def _raise_not_finite(self, session: Any, error: Exception) -> None:
        """Stop all trainers through a counter on the first parameter server. The failed step was not applied."""
        if not _NOT_FINITE.search(str(error)):
            raise error
        self._graph.set_trouble(session, self._cluster.trainer_index + 1)
        raise LossNotFiniteError(
            f"the loss is not finite after step {self._step} (learning rate {self._config.learning_rate:g}); "
            "the newest checkpoint is from before"
        ) from error

    def _raise_trouble(self, trouble: int) -> None:
        if trouble == graphs.CHIEF_FAILED:
            raise TrainerError(f"the chief has failed near step {self._step}; see its log")
        job, index = self._cluster.trainers[trouble - 1]
        raise LossNotFiniteError(f"{job}/{index} met a loss that is not finite near step {self._step}; see its log")

    def _report_failure(self, session: Any, error: TrainerError) -> None:
        """If the chief fails and will not be restarted, tell the other replicas, so that they do not wait for it."""
        if self._chief is None or session is None or error.exit_code != EXIT_ERROR:
            return
        with contextlib.suppress(*LOST):
            self._chief.fail(session, self._graph)

    def _check_stop(self, session: Any) -> None:
        """Stop if SIGTERM was received. The chief saves a checkpoint first.

        :raises PreemptedError: SIGTERM was received.
        """
        if not self._stop.asked:
            return
        if self._chief is not None and session is not None:
            self._chief.save(session, self._graph, self._loss, evaluate=False)
        raise PreemptedError("SIGTERM: stopped" + (", checkpoint saved" if self._chief and session else ""))
