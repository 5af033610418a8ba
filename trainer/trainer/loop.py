"""The session loop of a trainer: wait for the parameter servers, join them, step; when they are lost, again.

A replica survives the loss of any other. What it relies on:

1. A lost, restarted or hung parameter server makes ``session.run`` fail (``operation_timeout_in_ms`` bounds a hang).
   The session is thrown away, and the loop begins again with waiting.
2. Parameter servers say READY only once the chief has given them weights, so a worker never computes on nothing.
3. Nothing waits for ever: after ``--patience`` without a step, the replica says whom it waited for and gives up, with
   the exit code that means "try me again".
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import tensorflow as tf

from trainer import graph as graphs
from trainer import manifest
from trainer.chief import Chief
from trainer.cluster import Cluster, is_listening
from trainer.config import Config
from trainer.dataset import batches, open_dataset
from trainer.errors import (
    EXIT_ERROR,
    LossNotFiniteError,
    PreemptedError,
    ReplicaLostError,
    StorageError,
    TrainerError,
)
from trainer.session import (
    LOST,
    POLL,
    close_session,
    lanes,
    limit_threads,
    open_session,
    session_config,
    start_server,
)
from trainer.signals import Stop
from trainer.storage import open_store

log = logging.getLogger(__name__)
errors = tf.errors


class Trainer:
    """Chief or worker, in a cluster or alone."""

    def __init__(self, config: Config, cluster: Cluster, stop: Stop) -> None:
        self._config, self._cluster, self._stop = config, cluster, stop
        limit_threads(config, cluster)
        dataset = open_dataset(config.dataset)
        self._data = dataset.load("train")
        log.info("dataset %s, version %s: %d examples", dataset.uri, dataset.version, len(self._data))
        self._chief = Chief(config, cluster, dataset) if cluster.is_chief else None
        self._target = start_server(config, cluster).target if cluster.distributed else ""
        self._graph = graphs.build(
            cluster, learning_rate=config.learning_rate, seed=config.seed, lanes=lanes(config, cluster)
        )
        self._proto = session_config(config, cluster)
        self._alive = time.monotonic()  # when a step was last made
        self._steps = 0  # made here
        self._step = 0  # the job's, as last seen
        self._released = -1  # the checkpoint whose successor is not waited for
        self._loss: float | None = None

    def run(self) -> None:
        """Train until ``--max_steps``, whatever happens to the others.

        :raises ReplicaLostError: another replica stayed away longer than the patience.
        :raises LossNotFiniteError: here, or on another trainer.
        :raises PreemptedError: SIGTERM; the chief has saved a checkpoint.
        """
        while True:
            session = None
            try:
                if not self._wait_for_servers():
                    return
                session = self._open()
                self._join(session)
                self._train(session)
                self._finish(session)
            except LOST as error:
                if not self._cluster.distributed:
                    raise  # nobody to lose
                if isinstance(error, errors.DeadlineExceededError):
                    log.warning("no answer within %.0f s from %s", self._config.step_timeout, self._silent(session))
                log.warning(
                    "lost the parameter servers after step %d (%s): %s",
                    self._step,
                    type(error).__name__,
                    str(error.message)[:200],
                )
                self._check_patience("parameter servers that answer")
            except TrainerError as error:
                self._tell(session, error)
                raise
            else:
                return
            finally:
                close_session(session)
            self._stop.sleep(1.0)

    def _wait_for_servers(self) -> bool:
        """Until every parameter server listens. ``False``: the job is done, nobody will come any more."""
        said = 0.0
        while missing := [index for index in self._servers if not self._is_up("ps", index)]:
            self._check_stop(None)
            names = self._names(missing)
            if time.monotonic() - said > 5:
                said = time.monotonic()
                log.info("waiting for %s (%.0f of %.0f s)", names, said - self._alive, self._config.patience)
                if not self._cluster.is_chief and self._job_is_done():
                    return False
            self._check_patience(names)
            self._stop.sleep(POLL)
        return True

    def _open(self) -> Any:
        began = time.monotonic()
        return open_session(self._target, self._graph, self._proto, lambda: self._check_opening(began))

    def _check_opening(self, began: float) -> None:
        """A session is being opened: it must not wait for a server that has gone, or hangs, longer than a step may."""
        self._check_stop(None)
        if missing := [index for index in self._servers if not self._is_up("ps", index)]:
            raise errors.UnavailableError(None, None, f"{self._names(missing)} went away")
        if time.monotonic() - began > self._config.step_timeout:
            raise errors.DeadlineExceededError(None, None, "no session could be opened")

    @property
    def _servers(self) -> range:
        return range(self._cluster.ps_count)

    def _names(self, servers: Iterable[int]) -> str:
        return ", ".join(f"ps/{index} at {self._cluster.address('ps', index)}" for index in servers)

    def _is_up(self, job: str, index: int) -> bool:
        return is_listening(self._cluster.address(job, index))

    def _job_is_done(self) -> bool:
        """A worker that comes back late finds nobody: chief gone, model exported."""
        if self._is_up(self._cluster.chief_job, 0):
            return False
        try:
            found = manifest.read(open_store(self._config.model_dir), "")
        except StorageError:
            return False
        done = found is not None and int(found.get("step", 0)) >= self._config.max_steps
        if done:
            log.info("the chief has exported the model and gone; nothing left to do")
        return done

    def _join(self, session: Any) -> None:
        if self._chief is not None:
            self._chief.join(session, self._graph)
            return
        said = 0.0
        while self._graph.read_phase(session) == graphs.NEW:
            chief = f"chief/0 at {self._cluster.address(self._cluster.chief_job, 0)}"
            self._check_stop(None)
            if time.monotonic() - said > 5:
                said = time.monotonic()
                log.info(
                    "waiting for %s to give the parameter servers their weights (%.0f of %.0f s)",
                    chief,
                    said - self._alive,
                    self._config.patience,
                )
            self._check_patience(f"{chief} to give the parameter servers their weights")
            self._stop.sleep(POLL)

    def _train(self, session: Any) -> None:
        graph, config = self._graph, self._config
        self._step, _, saved = map(int, session.run(graph.state))
        log.info("training from step %d, %d here so far", self._step, self._steps)
        said = time.monotonic()
        source = self._batches(self._step)
        with _UnderWay(session, graph, self._cluster.steps_each) as under_way:
            while self._step < config.max_steps or under_way:
                if self._chief is None:
                    saved = self._wait_for_checkpoint(session, saved)
                self._check_stop(session)
                while len(under_way) < self._room():
                    under_way.begin(*next(source))
                if not under_way:
                    break  # the others have made the last steps while this one waited
                try:
                    result = under_way.finish()
                except errors.InvalidArgumentError as error:
                    self._not_finite(session, error)
                saved = self._see(result["state"])
                self._loss = float(result["loss"])
                self._steps += 1
                if self._chief is not None:
                    self._chief.after_step(session, graph, self._step, self._loss)
                elif self._alive - said > 5:
                    said = self._alive
                    self._say()
        log.info("%d of %d batches were made here", self._steps, self._step)

    def _room(self) -> int:
        """How many steps to have under way: one where those of all would come to an end or go over it."""
        left = self._config.max_steps - self._step
        if left > self._cluster.steps_under_way:
            return self._cluster.steps_each
        return int(left > 0)

    def _say(self) -> None:
        log.info(
            "step %d of %d, loss %.4f, %d batches here", self._step, self._config.max_steps, self._loss, self._steps
        )

    def _see(self, state: np.ndarray) -> int:
        """What the parameter servers say after a step; the newest checkpoint's step. Two steps may end in disorder."""
        step, trouble, saved = map(int, state)
        self._step = max(self._step, step)
        self._alive = time.monotonic()
        if trouble:
            self._in_trouble(trouble)
        return saved

    def _wait_for_checkpoint(self, session: Any, saved: int) -> int:
        """A parameter server that is lost takes with it what is not in a checkpoint: no more than one interval.

        So a worker goes no further than that, counted with the steps that the others may be about to make, while the
        chief writes. A chief that is gone, or has hung for the time of a step, is not waited for.
        """
        began, said = time.monotonic(), False
        while saved != self._released and self._is_ahead_of(saved):
            waited = time.monotonic() - began
            if waited > self._config.step_timeout or not self._is_up(self._cluster.chief_job, 0):
                log.warning("step %d: not waiting for the chief, whose newest checkpoint is of %d", self._step, saved)
                self._released = saved
            elif waited > 1 and not said:
                said = True
                log.info("step %d: waiting for the chief's checkpoint; the newest is of %d", self._step, saved)
            self._check_stop(session)
            self._stop.sleep(0.05)
            saved = self._see(session.run(self._graph.state))
        return saved

    def _is_ahead_of(self, saved: int) -> bool:
        """Whether what is under way may come to more than an interval."""
        more = min(self._cluster.steps_under_way, self._config.checkpoint // 2)
        return self._step < self._config.max_steps and self._step + more > saved + self._config.checkpoint

    def _finish(self, session: Any) -> None:
        if self._chief is None:
            return
        self._chief.finish(session, self._graph, self._loss)
        self._graph.set_phase(session, graphs.DONE)

    def _batches(self, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Another order on each trainer, and after each restart."""
        seed = (self._config.seed * 1_000_003 + step) * 1_009 + self._cluster.trainer_index
        return batches(self._data, self._config.batch_size, seed)

    def _not_finite(self, session: Any, error: Exception) -> None:
        """Say it to all through the first parameter server; nothing of this step was applied."""
        if "inf" not in str(error).lower() and "nan" not in str(error).lower():
            raise error
        self._graph.set_trouble(session, self._cluster.trainer_index + 1)
        raise LossNotFiniteError(
            f"the loss is not finite after step {self._step} (learning rate {self._config.learning_rate:g}); "
            "the newest checkpoint is from before"
        ) from error

    def _in_trouble(self, trouble: int) -> None:
        if trouble == graphs.CHIEF_FAILED:
            raise TrainerError(f"the chief has failed near step {self._step}; see its log")
        job, index = self._cluster.trainers[trouble - 1]
        raise LossNotFiniteError(f"{job}/{index} met a loss that is not finite near step {self._step}; see its log")

    def _tell(self, session: Any, error: TrainerError) -> None:
        """If the chief fails and will not be tried again, the others must not wait for it."""
        if self._chief is None or session is None or error.exit_code != EXIT_ERROR:
            return
        with contextlib.suppress(*LOST):
            self._chief.fail(session, self._graph)

    def _silent(self, session: Any) -> str:
        """Which parameter servers do not answer now. Without a session there is no telling: all of them."""
        if session is None:
            return " or ".join(map(self._names, ([index] for index in self._servers)))
        silent = []
        for index, known in enumerate(self._graph.phases_known):
            try:
                session.run(known, options=tf.compat.v1.RunOptions(timeout_in_ms=2000))
            except errors.OpError:
                silent.append(index)
        return self._names(silent) or "a parameter server that answers again"

    def _check_stop(self, session: Any) -> None:
        if not self._stop.asked:
            return
        if self._chief is not None and session is not None:
            self._chief.save(session, self._graph, self._loss, evaluate=False)
        raise PreemptedError("SIGTERM: stopped" + (", checkpoint saved" if self._chief and session else ""))

    def _check_patience(self, what: str) -> None:
        waited = time.monotonic() - self._alive
        if waited > self._config.patience:
            raise ReplicaLostError(f"gave up after {waited:.0f} s of waiting for {what}")


class _UnderWay:
    """The steps of one trainer that have begun and not ended, in the order of their beginning."""

    def __init__(self, session: Any, graph: graphs.Graph, most: int) -> None:
        self._session, self._graph = session, graph
        self._threads = ThreadPoolExecutor(most)
        self._steps: deque[Future[Any]] = deque()

    def begin(self, images: np.ndarray, labels: np.ndarray) -> None:
        graph = self._graph
        feeds = {graph.images: images, graph.labels: labels}
        self._steps.append(self._threads.submit(self._session.run, graph.train, feeds))

    def finish(self) -> Any:
        """What the oldest has come to; raises what it raised."""
        return self._steps.popleft().result()

    def __len__(self) -> int:
        return len(self._steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Steps that nobody waits for any more come to nothing, or fail, on their own."""
        self._threads.shutdown(wait=False, cancel_futures=True)
