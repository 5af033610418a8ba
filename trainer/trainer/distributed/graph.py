"""The training graph of one replica: weights on the parameter servers, computation on the replica.

This is between-graph replication: every trainer builds the same graph. Variables are shared because they have the same
names on the same parameter servers. One step pulls the weights and computes the gradients on this replica's cores; then
each parameter server applies Adam to the weights it holds. Training is asynchronous: updates do not wait for other
trainers.

The dense layer has 98 % of the weights but only a quarter of the arithmetic. Its three matrix products are therefore
computed on the parameter servers, with the weights as they are when the step begins. That sends the layer's inputs,
outputs and their gradients (3.3 MB a step for 100 examples) instead of its weights and their gradient (25.7 MB). The
results are the same. The layer is split by columns among the parameter servers, and on each server into pieces that
stay in a core's cache from the gradient to the Adam update. All other weights are sent as one tensor, and so are their
gradients: a step takes six messages with one parameter server, where one message per tensor would be 21.

Without parameter servers, all devices are in this process, and the same graph is an ordinary training loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import mnist
from trainer.distributed.cluster import Cluster

v1 = tf.compat.v1

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
# A parameter server's phase, kept in a variable on each server. Uninitialised means NEW: the server has (re)started.
NEW, READY, DONE, FAILED = 0, 1, 2, 3
# The dense layer is split by columns into at least this many pieces. All trainers must use the same number.
PIECES = 4
# A value of ``trouble``. Other values: 0 for none, n if the loss of trainer n-1 is not finite.
CHIEF_FAILED = -1


@dataclass(frozen=True)
class Graph:
    """A trainer's graph, with the tensors and variables that its session runs.

    :param variables: every saved value by its name in a checkpoint; a value in several shards is split by columns.
    :param saved: the step of the newest complete checkpoint; on a parameter server, so that all trainers can read it.
    :param phases: one for each parameter server, see :data:`READY`.
    """

    graph: Any
    images: Any
    labels: Any
    train: Any  # -> {"loss": float, "state": [step, trouble, saved]}
    state: Any  # the same three, now
    step: Any
    trouble: Any
    saved: Any
    shares: Any
    variables: Mapping[str, tuple[Any, ...]]
    phases: tuple[Any, ...]
    phases_known: tuple[Any, ...]
    _feeds: dict[Any, Any] = field(default_factory=dict)

    def write(self, session: Any, values: Mapping[str, np.ndarray]) -> None:
        """Assign the values of a checkpoint, or the initial ones, to the variables. Resets ``trouble`` to 0."""
        feeds, assigns = {}, []
        for counter, value in ((self.trouble, 0), (self.saved, values["global_step"])):
            placeholder, assign = self._feeds[counter.name]
            feeds[placeholder] = value
            assigns.append(assign)
        for name, shards in self.variables.items():
            parts = np.array_split(values[name], len(shards), axis=1) if len(shards) > 1 else [values[name]]
            for shard, part in zip(shards, parts, strict=True):
                placeholder, assign = self._feeds[shard.name]
                feeds[placeholder] = part
                assigns.append(assign)
        session.run(assigns, feeds)

    def read(self, session: Any) -> dict[str, np.ndarray]:
        """The current values. Training continues during the read, so variables may be a step apart."""
        fetched = session.run({name: list(shards) for name, shards in self.variables.items()})
        return {name: parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1) for name, parts in fetched.items()}

    def read_counters(self, session: Any) -> tuple[int, list[int]]:
        """The step, and the number of batches that each trainer has processed."""
        step, shares = session.run([self.step, self.shares])
        return int(step), [int(share) for share in shares]

    def set_phase(self, session: Any, phase: int) -> None:
        session.run(
            [self._feeds[variable.name][1] for variable in self.phases],
            {self._feeds[variable.name][0]: phase for variable in self.phases},
        )

    def read_phase(self, session: Any) -> int:
        """The lowest phase of all parameter servers."""
        if not all(session.run(list(self.phases_known))):
            return NEW
        return int(min(session.run(list(self.phases))))

    def set_trouble(self, session: Any, value: int) -> None:
        self._set(session, self.trouble, value)

    def set_saved(self, session: Any, step: int) -> None:
        self._set(session, self.saved, step)

    def _set(self, session: Any, variable: Any, value: int) -> None:
        placeholder, assign = self._feeds[variable.name]
        session.run(assign, {placeholder: value})


def build(
    cluster: Cluster,
    *,
    learning_rate: float,
    seed: int,
    steps: int = 0,
    dropout: float = 0.5,
    lanes: int = 1,
    gpu: bool = False,
    compute: tf.DType = tf.float32,
) -> Graph:
    """The graph of this trainer.

    :param steps: the steps of the whole training, over which the learning rate falls to 0. With 0, it is constant.
    :param lanes: the number of parts of a batch that run in parallel, each on one core; see :func:`_features`.
    :param gpu: compute on this replica's first GPU; the session must place operations without a GPU kernel elsewhere.
    :param compute: the type in which convolutions and the dense layer are computed.
    """
    places = _Places(cluster, "GPU:0" if gpu else "CPU:0")
    graph = tf.Graph()
    with graph.as_default(), tf.device(places.worker):
        tf.compat.v1.set_random_seed(seed + cluster.trainer_index)
        variables = _Variables(places, trainers=len(cluster.trainers))
        images = v1.placeholder(tf.uint8, [None, mnist.PIXELS], "images")
        labels = v1.placeholder(tf.uint8, [None], "labels")
        loss, applied = _train(variables, images, labels, _Settings(learning_rate, steps, dropout, lanes, compute))
        with tf.control_dependencies(applied), tf.device(variables.step.device):
            step = variables.step.assign_add(1, read_value=False)
            share = tf.raw_ops.ResourceScatterAdd(
                resource=variables.shares.handle, indices=[cluster.trainer_index], updates=np.array([1], np.int64)
            )
        with tf.control_dependencies([step, share]), tf.device(variables.step.device):
            after = variables.read_state()
        state = variables.read_state()
        feeds = {variable.name: _assign(variable) for variable in variables.everything}
        known = tuple(_on(variable, variable.is_initialized) for variable in variables.phases)
    graph.finalize()
    return Graph(
        graph,
        images,
        labels,
        {"loss": loss, "state": after},
        state,
        variables.step,
        variables.trouble,
        variables.newest,
        variables.shares,
        variables.saved,
        variables.phases,
        known,
        feeds,
    )


def build_phase(cluster: Cluster) -> tuple[Any, Any, Any]:
    """The graph with which a parameter server reads its own phase: ``(graph, phase, whether it is initialised)``."""
    graph = tf.Graph()
    with graph.as_default(), tf.device(f"/job:ps/task:{cluster.index}/device:CPU:0"):
        phase = _variable(f"phase{cluster.index}", [], tf.int32)
        known = phase.is_initialized()
    graph.finalize()
    return graph, phase, known


class _Places:
    """Device placement: counters and small weights on the first parameter server, large weights on all of them."""

    def __init__(self, cluster: Cluster, device: str) -> None:
        task = f"/job:{cluster.job}/task:{cluster.index}" if cluster.distributed else ""
        self.worker = f"{task}/device:{device}"
        self.servers = [f"/job:ps/task:{index}/device:CPU:0" for index in range(cluster.ps_count)] or [self.worker]

    def of(self, name: str) -> list[str]:
        if name != mnist.LARGE:
            return self.servers[:1]
        pieces = -(-PIECES // len(self.servers))
        return [server for server in self.servers for _ in range(pieces)]


class _Variables:
    """All variables: weights with Adam's two moments, and counters."""

    def __init__(self, places: _Places, trainers: int) -> None:
        self.weights: dict[str, list[tuple[Any, Any, Any]]] = {}
        self.saved: dict[str, tuple[Any, ...]] = {}
        for name, shape in mnist.SHAPES.items():
            servers = places.of(name)
            shards = []
            for number, (server, width) in enumerate(zip(servers, _widths(shape[-1], len(servers)), strict=True)):
                size = [*shape[:-1], width]
                with tf.device(server):
                    suffix = f"/shard{number}" if len(servers) > 1 else ""
                    shards.append(tuple(_variable(name + suffix + kind, size) for kind in ("", "/adam_m", "/adam_v")))
            self.weights[name] = shards
            for position, kind in enumerate(("", "/adam_m", "/adam_v")):
                self.saved[name + kind] = tuple(shard[position] for shard in shards)
        with tf.device(places.servers[0]):
            self.step = _variable("global_step", [], tf.int64)
            self.shares = _variable("shares", [trainers], tf.int64)
            self.trouble = _variable("trouble", [], tf.int64)
            self.newest = _variable("saved", [], tf.int64)
        self.saved["global_step"] = (self.step,)
        self.saved["shares"] = (self.shares,)
        phases = []
        for number, server in enumerate(places.servers):
            with tf.device(server):
                phases.append(_variable(f"phase{number}", [], tf.int32))
        self.phases = tuple(phases)

    @property
    def everything(self) -> list[Any]:
        saved = [shard for shards in self.saved.values() for shard in shards]
        return [*saved, self.trouble, self.newest, *self.phases]

    def read_state(self) -> Any:
        with tf.device(self.step.device):
            return tf.stack([counter.read_value() for counter in (self.step, self.trouble, self.newest)])


@dataclass(frozen=True)
class _Settings:
    rate: float
    steps: int
    dropout: float
    lanes: int
    compute: tf.DType


def _train(variables: _Variables, images: Any, labels: Any, settings: _Settings) -> Any:
    """One step: pull, compute, push. Returns the loss, and the operations that apply the updates."""
    shards = variables.weights[mnist.LARGE]
    small = {name: parts[0] for name, parts in variables.weights.items() if name != mnist.LARGE}
    step = _on(variables.step, variables.step.read_value)
    weights = pull({name: weight for name, (weight, _, _) in small.items()})
    inputs = _features(weights, images, settings.lanes, settings.compute)
    pieces = [dense(weight, inputs) for weight, _, _ in shards]
    scores = mnist.head(weights, _side_by_side(pieces), settings.dropout)
    loss = tf.reduce_mean(mnist.losses(scores, tf.cast(labels, tf.int32)))
    # A loss that is not a number fails the step here, before there is any gradient to apply.
    loss = tf.debugging.check_numerics(loss, "loss")
    with tf.control_dependencies([loss]):
        one = tf.ones([])
    gradients = tf.gradients(loss, [*weights.values(), *pieces], grad_ys=one)
    adam = _Adam(settings, step)
    pushed = push(gradients[: len(small)], variables.step.device)
    applied = [adam.apply(shard, gradient) for shard, gradient in zip(small.values(), pushed, strict=True)]
    for shard, gradient in zip(shards, gradients[len(small) :], strict=True):
        applied.append(adam.apply(shard, outer_product(shard[0], inputs, gradient)))
    return loss, applied


def pull(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The values of variables of one parameter server, by name. They are sent as one tensor."""
    shapes = [variable.shape for variable in variables.values()]
    with tf.device(next(iter(variables.values())).device):
        packed = _pack([variable.read_value() for variable in variables.values()])
    return dict(zip(variables, _unpack(tf.identity(packed), shapes), strict=True))


def push(gradients: Sequence[Any], device: str) -> list[Any]:
    """The same gradients on a parameter server. They are sent as one tensor."""
    packed = _pack(gradients)
    with tf.device(device):
        return _unpack(tf.identity(packed), [gradient.shape for gradient in gradients])


def _pack(tensors: Sequence[Any]) -> Any:
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)


def _unpack(packed: Any, shapes: Sequence[Any]) -> list[Any]:
    parts = tf.split(packed, [shape.num_elements() for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]


def _side_by_side(pieces: Sequence[Any]) -> Any:
    """One matrix from its columns. Pieces on the same parameter server are joined there and sent as one tensor."""
    joined = []
    for device, parts in itertools.groupby(pieces, key=lambda piece: piece.device):
        with tf.device(device):
            joined.append(tf.concat(list(parts), axis=1))
    return joined[0] if len(joined) == 1 else tf.concat(joined, axis=1)


def _features(weights: Mapping[str, Any], images: Any, lanes: int, compute: tf.DType) -> Any:
    """The convolutions, split by examples: each lane computes its part of the batch on one core.

    A few long lanes keep the cores busier than splitting every operation, which waits for the slowest piece each time.
    The sum of the lanes' gradients is the gradient of the whole batch.
    """
    size = tf.shape(images)[0]
    bounds = [size * lane // lanes for lane in range(lanes + 1)]
    parts = [
        mnist.features(weights, tf.cast(images[start:end], tf.float32) / 255.0, compute)
        for start, end in itertools.pairwise(bounds)
    ]
    return parts[0] if lanes == 1 else tf.concat(parts, axis=0)


def dense(weight: Any, inputs: Any) -> Any:
    """``inputs @ weight``, computed on the weight's device, as is its gradient with respect to ``inputs``.

    The weight is read once, so both use the same values even if another trainer applies an update in between.
    """
    with tf.device(weight.device):
        return mnist.product(inputs, tf.identity(weight.read_value()))


def outer_product(weight: Any, inputs: Any, gradient: Any) -> Any:
    """The dense layer's gradient from its factors, multiplied on the weight's device."""
    with tf.device(weight.device):
        return mnist.product(inputs, gradient, transpose_a=True)


class _Adam:
    """Adam's update, in one fused operation on the weight's device."""

    def __init__(self, settings: _Settings, step: Any) -> None:
        with tf.device(step.device):
            self.rate = mnist.learning_rate(settings.rate, step, settings.steps)
            self.time = tf.cast(step + 1, tf.float32)

    def apply(self, shard: tuple[Any, Any, Any], gradient: Any) -> Any:
        weight, mean, variance = shard
        with tf.device(weight.device):
            return tf.raw_ops.ResourceApplyAdam(
                var=weight.handle,
                m=mean.handle,
                v=variance.handle,
                beta1_power=tf.pow(BETA1, self.time),
                beta2_power=tf.pow(BETA2, self.time),
                lr=self.rate,
                beta1=BETA1,
                beta2=BETA2,
                epsilon=EPSILON,
                grad=gradient,
            )


def _widths(columns: int, parts: int) -> list[int]:
    """The widths of the parts that ``np.array_split`` makes: the first may be a column wider than the last."""
    return [len(part) for part in np.array_split(np.arange(columns), parts)]


def _variable(name: str, shape: list[int], dtype: Any = tf.float32) -> Any:
    return v1.get_variable(name, shape, dtype, initializer=v1.zeros_initializer(), trainable=False, use_resource=True)


def _on(variable: Any, read: Any) -> Any:
    with tf.device(variable.device):
        return read()


def _assign(variable: Any) -> tuple[Any, Any]:
    with tf.device(variable.device):
        placeholder = v1.placeholder(variable.dtype, variable.shape)
        return placeholder, variable.assign(placeholder, read_value=False)
