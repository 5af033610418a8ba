"""The chief's part of a training: initialisation, checkpoints, evaluation, reports, export.

Only the chief and the evaluator, if there is one, write to the job's storage. They share one file, ``metrics.jsonl``,
and neither loses the other's rows when it updates the file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from trainer import mnist
from trainer.config import Config
from trainer.distributed import graph as graphs
from trainer.distributed.cluster import Cluster, usable_cores
from trainer.distributed.graph import Graph
from trainer.errors import LossNotFiniteError
from trainer.files.checkpoint import Checkpoints
from trainer.files.dataset import Dataset, Split
from trainer.files.reports import Progress, Summaries, append_metrics, read_progress
from trainer.files.storage import open_store
from trainer.model import LocalModel, export

log = logging.getLogger(__name__)


class Readable(Protocol):
    """A source of a training's values: the graph in its session, or a synchronous replica."""

    def read(self, session: Any) -> dict[str, np.ndarray]: ...

    def read_counters(self, session: Any) -> tuple[int, list[int]]: ...

    def set_saved(self, session: Any, step: int) -> None: ...


class Chief:
    """The chief's part of a training; independent of the session, which may be replaced."""

    def __init__(self, config: Config, cluster: Cluster, dataset: Dataset) -> None:
        self._config, self._cluster = config, cluster
        self._store = open_store(config.log_dir)
        self._checkpoints = Checkpoints(self._store)
        self._progress = Progress(self._store, config.max_steps, config.batch_size, "chief")
        self._heldout: Split = dataset.load("heldout")
        self._sample = self._heldout.sample(config.eval_examples or len(self._heldout))
        self._model: LocalModel | None = None
        self._summaries: Summaries | None = None
        self._saved_step = -1
        self._newest = 0  # the newest checkpoint's step; training resumes there if a parameter server is lost
        self._lead = cluster.steps_under_way if cluster.distributed else 0
        self._rate: float | None = None
        self._mark = (time.monotonic(), 0)

    def join(self, session: Any, graph: Graph) -> None:
        """Initialise the parameter servers, unless they are ready.

        If all servers hold the values of a running training, nothing is restored: a restore would undo the steps that
        the workers made while the chief was down. If any server is new, all of them are reset to the newest checkpoint,
        or to the initial weights.
        """
        if graph.read_phase(session) == graphs.READY:
            step, _, self._newest = map(int, session.run(graph.state))
            log.info("joined the running parameter servers at step %d; nothing was restored", step)
        else:
            step, values, origin = self.newest()
            graph.set_phase(session, graphs.NEW)  # so that no worker joins while the weights are written
            graph.write(session, values)
            log.info("%s at step %d", origin, step)
        graph.set_trouble(session, 0)
        graph.set_phase(session, graphs.READY)
        self._mark = (time.monotonic(), step)

    def newest(self) -> tuple[int, dict[str, np.ndarray], str]:
        """The step, values and origin to start from: the newest checkpoint, or the initial weights.

        The next checkpoint is due one interval after this step, and rates are measured from here.
        """
        found = self._checkpoints.load_newest()
        self._newest = found[0] if found else 0
        self._mark = (time.monotonic(), self._newest)
        if found is not None:
            step, values = found
            self._saved_step = step
            trainers = len(self._cluster.trainers)
            if len(values.get("shares", ())) != trainers:  # the size of the cluster has changed
                values["shares"] = np.zeros(trainers, np.int64)
            return step, values, "restored the checkpoint"
        return 0, first_values(self._config, self._cluster), "first weights"

    def after_step(self, session: Any, graph: Readable, step: int, loss: float) -> None:
        """Report progress every few seconds; save and evaluate a checkpoint when one is due."""
        self._progress.update(step, loss)
        if self._is_due(step) and step < self._config.max_steps:
            self._measure(step)
            self.save(session, graph, loss)
            self._mark = (time.monotonic(), step)

    def save(self, session: Any, graph: Readable, loss: float | None, *, evaluate: bool = True) -> int:
        """Fetch the values, save a checkpoint and evaluate it. Returns its step.

        :raises LossNotFiniteError: see :meth:`_save`.
        """
        values = self._save(session, graph)
        step = int(values["global_step"])
        if evaluate and not (self._cluster.has_evaluator and step < self._config.max_steps):
            self._evaluate(step, loss, values)
        return step

    def _save(self, session: Any, graph: Readable) -> Mapping[str, np.ndarray]:
        """Fetch the values and save a checkpoint, unless this step already has one. Returns the values.

        :raises LossNotFiniteError: the loss with these weights is not finite; no checkpoint is saved. The loss that a
            step reports does not show this, because it is computed before the step's update.
        """
        values = graph.read(session)
        step = int(values["global_step"])
        if step == self._saved_step:
            return values
        if not self._loaded(values).is_sound(self._heldout):
            raise LossNotFiniteError(
                f"the loss is not finite with the weights of step {step} (learning rate "
                f"{self._config.learning_rate:g}); the newest checkpoint is from before"
            )
        checkpoint = self._checkpoints.save(step, values)
        self._saved_step = self._newest = step
        graph.set_saved(session, step)
        log.info("saved checkpoint %s", checkpoint.name)
        self._lead = self._meanwhile(session, graph, step)
        return values

    def finish(self, session: Any, graph: Readable, loss: float | None) -> None:
        """Save and evaluate the last checkpoint, export the same values, and log the share of each trainer."""
        self._measure(graph.read_counters(session)[0])
        values = self._save(session, graph)
        step = int(values["global_step"])
        self._evaluate(step, loss, values)
        export(self._loaded(values), open_store(self._config.model_dir), step)
        if loss is not None or (read_progress(self._store) or {}).get("step") != step:
            self._progress.update(step, loss, now=True)
        _, counts = graph.read_counters(session)
        for (job, index), count in zip(self._cluster.trainers, counts, strict=True):
            log.info("share of %s/%d: %d of %d batches (%.1f %%)", job, index, count, step, 100 * count / max(1, step))

    def fail(self, session: Any, graph: Graph) -> None:
        """Mark the training as failed, so that the other replicas do not wait for the chief."""
        graph.set_trouble(session, graphs.CHIEF_FAILED)
        graph.set_phase(session, graphs.FAILED)

    def _is_due(self, step: int) -> bool:
        """Whether to save now, so that the checkpoint is complete before the workers reach the end of the interval.

        Workers wait there for the checkpoint; see :meth:`trainer.distributed.peers.Peers.wait_for_checkpoint`.
        """
        return step >= self._newest + max(1, self._config.checkpoint - self._lead)

    def _meanwhile(self, session: Any, graph: Readable, step: int) -> int:
        """The number of steps that the other trainers make while a checkpoint is written; half an interval at most."""
        if not self._cluster.distributed:
            return 0
        made = graph.read_counters(session)[0] - step
        return min(max(self._cluster.steps_under_way, made), self._config.checkpoint // 2)

    def _evaluate(self, step: int, loss: float | None, values: Mapping[str, np.ndarray]) -> None:
        """Evaluate on all held-out examples after the last step, and on a sample before it.

        Earlier evaluations are kept small because they compete for cores with the trainers that are still running.
        """
        began = time.monotonic()
        is_last = step >= self._config.max_steps
        heldout = self._heldout if is_last else self._sample
        evaluation = self._loaded(values).evaluate(heldout, parts=usable_cores() if is_last else 1)
        append_metrics(self._store, step, loss, evaluation)
        self._summaries = self._summaries or Summaries(open_store(self._config.summary_dir))
        self._summaries.write(
            step, train_loss=loss, rate=self._rate, evaluation=evaluation, values=values, heldout=heldout
        )
        log.info(
            "step %d: held-out accuracy %.4f, loss %.4f, on %d examples (%.1f s)",
            step,
            evaluation.accuracy,
            evaluation.loss,
            len(heldout),
            time.monotonic() - began,
        )

    def _loaded(self, values: Mapping[str, np.ndarray]) -> LocalModel:
        self._model = self._model or LocalModel()
        self._model.load(values)
        return self._model

    def _measure(self, step: int) -> None:
        elapsed = time.monotonic() - self._mark[0]
        self._rate = (step - self._mark[1]) * self._config.batch_size / elapsed if elapsed > 0 else None


def first_values(config: Config, cluster: Cluster) -> dict[str, np.ndarray]:
    """The values of step 0."""
    values = mnist.initial_weights(config.seed)
    for name, value in list(values.items()):
        values[name + "/adam_m"], values[name + "/adam_v"] = np.zeros_like(value), np.zeros_like(value)
    return {**values, "global_step": np.array(0, np.int64), "shares": np.zeros(len(cluster.trainers), np.int64)}
