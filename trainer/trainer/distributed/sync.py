"""``--strategy sync``: synchronous training with all-reduce, without parameter servers.

Each replica takes its share of the batch from its own part of the data, so that a step equals the step of one process
on the entire batch. All replicas have the same weights, because they start from the chief's and apply the same averaged
gradient.

If a replica is lost, the step fails on all of them. Each process exits with the code for a retry (or is terminated by
TensorFlow's coordination service), and the job continues from the newest checkpoint. With ``async``, the other replicas
keep training.
"""

from __future__ import annotations

import json
import logging
import os
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import devices, mnist
from trainer.chief import Chief, first_values
from trainer.config import Config
from trainer.distributed.cluster import Cluster
from trainer.distributed.graph import BETA1, BETA2, EPSILON
from trainer.distributed.session import limit_threads
from trainer.distributed.signals import Stop
from trainer.errors import DatasetError, LossNotFiniteError, PreemptedError, ReplicaLostError, UsageError
from trainer.files import manifest
from trainer.files.dataset import batches, open_dataset
from trainer.files.storage import open_store

log = logging.getLogger(__name__)

# The errors that a collective operation raises if another replica has exited.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
    tf.errors.DeadlineExceededError,
)


def train(config: Config, cluster: Cluster, stop: Stop) -> None:
    """Train until ``--max_steps``.

    :raises ReplicaLostError: another replica was lost, or did not start.
    :raises LossNotFiniteError: the loss is not finite; raised on all replicas at the same step.
    :raises PreemptedError: SIGTERM was received; the chief has saved a checkpoint.
    """
    if cluster.ps_count or cluster.job == "ps":
        raise UsageError("--strategy sync does not use parameter servers; remove them from the cluster")
    limit_threads(config, cluster)
    strategy = _strategy(cluster)
    dataset = open_dataset(config.dataset)
    examples, trainers = dataset.load("train"), len(cluster.trainers)
    share = _share(config, len(examples), trainers)
    config = config.with_batches_of(share * trainers)
    data = examples.shard(cluster.trainer_index, trainers)
    # Only the chief reads and writes checkpoints. The others copy its values, so that all start from the same ones.
    chief = Chief(config, cluster, dataset) if cluster.is_chief else None
    if chief is not None:
        _, values, origin = chief.newest()
    else:
        values, origin = first_values(config, cluster), "joined the chief"
    replicas = _Replica(strategy, config, values, cluster)
    step = 0
    loss: float | None = None
    try:
        step = replicas.start()
        log.info("%s at step %d; %d examples here", origin, step, len(data))
        tf.random.set_seed((config.seed * 1_000_003 + step) * 1_009 + cluster.trainer_index)
        for images, labels in batches(data, share, config.seed * 1_000_003 + step):
            if step >= config.max_steps:
                break
            if stop.asked:
                if chief is not None:
                    chief.save(None, replicas, loss, evaluate=False)
                raise PreemptedError("SIGTERM: stopped")
            loss = replicas.train(images, labels)
            step += 1
            if chief is not None:
                chief.after_step(None, replicas, step, loss)
        log.info("%d steps, with %d of %d examples each in this replica", step, share, config.batch_size)
        if chief is not None:
            chief.finish(None, replicas, loss)
        _meet(replicas, config, step)
    except _LOST as error:
        raise ReplicaLostError(f"lost another replica at step {step}: {str(error.message)[:200]}") from error


def _share(config: Config, examples: int, trainers: int) -> int:
    """The number of examples per step on each replica; the same on all of them.

    :raises DatasetError: a replica would have no examples.
    """
    if examples < trainers:
        raise DatasetError(f"{config.dataset}: {examples} training examples for {trainers} replicas; each needs one")
    return max(1, min(config.batch_size, examples) // trainers)


def _meet(replicas: _Replica, config: Config, step: int) -> None:
    """Wait until all replicas have finished: one that exits early would break the collective operation of the others.

    Even so, another replica can exit before this one has received the result. The model is already exported then.
    """
    try:
        replicas.meet()
    except _LOST:
        exported = manifest.read(open_store(config.model_dir), "")
        if exported is None or exported.get("step") != step:
            raise
        log.info("another replica has ended; the model of step %d is exported", step)


class _Replica:
    """This replica's copy of the weights, and the synchronous step."""

    def __init__(self, strategy: Any, config: Config, values: dict[str, np.ndarray], cluster: Cluster) -> None:
        self._strategy, self._config, self._cluster = strategy, config, cluster
        self._compute = devices.compute_type(config.precision)
        log.info("convolutions and dense layer are computed in %s", self._compute.name)
        # Sorted, so that the order is the same on all replicas.
        self._variables = {name: tf.Variable(values[name], name=name) for name in sorted(values) if name != "shares"}

    def start(self) -> int:
        """Copy the chief's values. Returns their step."""
        if len(self._cluster.trainers) > 1:
            self._take_over()
        return self.read_counters(None)[0]

    def train(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Make one step. Returns the mean loss of all replicas."""
        loss = float(self._step(tf.constant(images), tf.constant(labels)))
        if not np.isfinite(loss):
            raise LossNotFiniteError(
                f"the loss is not finite (learning rate {self._config.learning_rate:g}); "
                "the newest checkpoint is from before"
            )
        return loss

    def meet(self) -> None:
        """Wait until all replicas have called this."""
        self._meet()

    def read(self, _session: object) -> dict[str, np.ndarray]:
        values = {name: variable.numpy() for name, variable in self._variables.items()}
        return {**values, "shares": np.array(self.read_counters(None)[1], np.int64)}

    def read_counters(self, _session: object) -> tuple[int, list[int]]:
        step = int(self._variables["global_step"].numpy())
        return step, [step] * len(self._cluster.trainers)

    def set_saved(self, _session: object, step: int) -> None:
        """Not needed: no replica is ahead of the chief."""

    @tf.function  # type: ignore[untyped-decorator]
    def _step(self, images: Any, labels: Any) -> Any:
        return self._strategy.run(self._replica_step, (images, labels))

    @tf.function  # type: ignore[untyped-decorator]
    def _take_over(self) -> None:
        self._strategy.run(self._replica_take_over)

    @tf.function  # type: ignore[untyped-decorator]
    def _meet(self) -> Any:
        return self._strategy.run(lambda: _mean([tf.constant(1.0)]))

    def _replica_take_over(self) -> None:
        """Copy the chief's values with an all-reduce: the sum of its values and zeros from all others."""
        for variable in self._variables.values():
            own = variable.read_value()
            variable.assign(_sum(own if self._cluster.is_chief else tf.zeros_like(own)))

    def _replica_step(self, images: Any, labels: Any) -> Any:
        variables = self._variables
        weights = {name: variables[name] for name in mnist.SHAPES}
        with tf.GradientTape() as tape:
            features = mnist.features(weights, tf.cast(images, tf.float32) / 255.0, self._compute)
            hidden = mnist.product(features, weights[mnist.LARGE])
            scores = mnist.head(weights, hidden, dropout=0.5)
            loss = tf.reduce_mean(mnist.losses(scores, tf.cast(labels, tf.int32)))
        loss, *gradients = _mean([loss, *tape.gradient(loss, list(weights.values()))])
        loss = tf.identity(loss)
        moment = tf.cast(variables["global_step"] + 1, tf.float32)
        finite = tf.math.is_finite(loss)
        config = self._config
        rate = mnist.learning_rate(config.learning_rate, variables["global_step"], config.max_steps)
        rate = tf.where(finite, rate, 0.0)  # a loss that is not finite changes nothing
        for name, gradient in zip(weights, gradients, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=variables[name].handle,
                m=variables[name + "/adam_m"].handle,
                v=variables[name + "/adam_v"].handle,
                beta1_power=tf.pow(BETA1, moment),
                beta2_power=tf.pow(BETA2, moment),
                lr=rate,
                beta1=BETA1,
                beta2=BETA2,
                epsilon=EPSILON,
                grad=gradient,
            )
        variables["global_step"].assign_add(1)
        return loss


def _mean(values: list[Any]) -> Any:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, values)


def _sum(value: Any) -> Any:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def _strategy(cluster: Cluster) -> Any:
    if len(cluster.trainers) == 1:
        return tf.distribute.get_strategy()
    # TensorFlow's strategies do not know the name "master".
    nodes = {("chief" if job == cluster.chief_job else job): list(cluster.tasks[job]) for job, _ in cluster.trainers}
    task = {"type": "chief" if cluster.is_chief else cluster.job, "index": cluster.index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": nodes, "task": task})
    return tf.distribute.MultiWorkerMirroredStrategy()
