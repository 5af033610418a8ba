"""The model and one training step, compared with the same computation in NumPy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.cluster import free_ports, require_bfloat16
from trainer import loop, mnist
from trainer.config import parse
from trainer.distributed import graph as graphs
from trainer.distributed.cluster import Cluster
from trainer.distributed.session import session_config


def _session(graph: graphs.Graph, target: str = "", *, soft: bool = False) -> Any:
    return tf.compat.v1.Session(target, graph.graph, tf.compat.v1.ConfigProto(allow_soft_placement=soft))


def _start(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    values = dict(weights)
    for name, value in weights.items():
        values[name + "/adam_m"], values[name + "/adam_v"] = np.zeros_like(value), np.zeros_like(value)
    return {**values, "global_step": np.array(0, np.int64), "shares": np.zeros(1, np.int64)}


def _batch(rows: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    return (
        generator.integers(0, 256, (rows, 784), dtype=np.uint8),
        generator.integers(0, 10, rows, dtype=np.uint8),
    )


def test_the_model_starts_with_the_parameters_of_the_seed() -> None:
    assert mnist.PARAMETERS == 3_274_634
    assert sum(value.size for value in mnist.initial_weights(0).values()) == 3_274_634


def test_initial_weights_depend_only_on_the_seed() -> None:
    one, same, other = mnist.initial_weights(1), mnist.initial_weights(1), mnist.initial_weights(2)
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["conv1/kernel"], other["conv1/kernel"])
    kernel = one["dense1/kernel"]
    assert kernel.std() == pytest.approx(np.sqrt(2 / 3136), rel=0.01)


@pytest.mark.parametrize(
    ("lanes", "servers", "gpu"),
    [(1, 0, False), (2, 0, False), (4, 0, False), (1, 1, False), (1, 3, False), (1, 0, True), (1, 1, True)],
)
def test_a_step_is_adam_on_the_gradient_of_the_mean_loss(lanes: int, servers: int, gpu: bool) -> None:
    """The update is the same for any number of lanes, and of shards of the dense layer.

    Three shards cannot be equally wide. Without a GPU, the graph for a GPU is placed on the CPU.
    """
    cluster, target = _cluster_with(servers)
    graph = graphs.build(cluster, learning_rate=1e-3, seed=0, dropout=0.0, lanes=lanes, gpu=gpu)
    weights = mnist.initial_weights(0)
    images, labels = _batch(16)
    with _session(graph, target, soft=gpu) as session:
        graph.write(session, _start(weights))
        result = session.run(graph.train, {graph.images: images, graph.labels: labels})
        after = graph.read(session)
    variables = {name: tf.Variable(value) for name, value in weights.items()}
    with tf.GradientTape() as tape:
        logits = mnist.logits(variables, tf.cast(images, tf.float32) / 255)
        loss = tf.reduce_mean(mnist.losses(logits, tf.cast(labels, tf.int32)))
    gradients = tape.gradient(loss, variables)
    assert result["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert after["global_step"] == 1
    assert after["shares"].tolist() == [1]
    for name in weights:
        gradient = gradients[name].numpy()
        # The two graphs are fused differently, so sums are rounded differently. Tolerances are relative to the largest
        # value.
        mean, variance = after[name + "/adam_m"], after[name + "/adam_v"]
        np.testing.assert_allclose(mean, 0.1 * gradient, rtol=1e-3, atol=1e-3 * np.abs(mean).max())
        np.testing.assert_allclose(variance, 0.001 * gradient**2, rtol=1e-3, atol=1e-3 * variance.max())
        rate = 1e-3 * np.sqrt(1 - 0.999) / (1 - 0.9)
        expected = weights[name] - rate * mean / (np.sqrt(variance) + 1e-8)
        np.testing.assert_allclose(after[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("lanes", "servers"), [(1, 0), (4, 0), (1, 3)])
def test_bfloat16_computes_the_same_step_with_fewer_digits(lanes: int, servers: int) -> None:
    """A value of bfloat16 has 8 significant bits. Weights, moments and updates keep all 24."""
    require_bfloat16()
    weights = mnist.initial_weights(0)
    images, labels = _batch(64)
    losses, moments = [], []
    for compute, (cluster, target) in ((tf.float32, (Cluster(), "")), (tf.bfloat16, _cluster_with(servers))):
        graph = graphs.build(cluster, learning_rate=1e-3, seed=0, dropout=0.0, lanes=lanes, compute=compute)
        config = session_config(parse(["--dataset", "d", "--precision", compute.name]), cluster)
        with tf.compat.v1.Session(target, graph.graph, config) as session:
            graph.write(session, _start(weights))
            losses.append(session.run(graph.train, {graph.images: images, graph.labels: labels})["loss"])
            after = graph.read(session)
        moments.append({name: after[name + "/adam_m"] for name in weights})
        assert {after[name].dtype for name in weights} == {np.dtype(np.float32)}
    exact, rounded = moments
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    for name in weights:
        cosine = np.vdot(exact[name], rounded[name]) / (np.linalg.norm(exact[name]) * np.linalg.norm(rounded[name]))
        assert cosine > 0.99, name
        assert np.linalg.norm(rounded[name]) == pytest.approx(np.linalg.norm(exact[name]), rel=0.05), name
        assert not np.array_equal(exact[name], rounded[name]), "it was not computed in bfloat16"


@pytest.mark.parametrize(("step", "share"), [(0, 1.0), (30, 0.25), (40, 0.0), (41, 0.0)])
def test_the_learning_rate_falls_to_zero_at_the_last_step(step: int, share: float) -> None:
    """Steps that were in flight when the last one was applied change no weight."""
    weights = mnist.initial_weights(0)
    images, labels = _batch(8)
    changes = []
    for steps in (0, 40):
        graph = graphs.build(Cluster(), learning_rate=1e-3, seed=0, steps=steps, dropout=0.0)
        with _session(graph) as session:
            graph.write(session, {**_start(weights), "global_step": np.array(step, np.int64)})
            session.run(graph.train, {graph.images: images, graph.labels: labels})
            changes.append(graph.read(session)["dense2/kernel"] - weights["dense2/kernel"])
    constant, falling = changes
    assert np.abs(constant).max() > 0
    np.testing.assert_allclose(falling, share * constant, rtol=1e-2, atol=1e-2 * np.abs(constant).max())


def test_a_non_finite_loss_applies_no_update() -> None:
    graph = graphs.build(Cluster(), learning_rate=1e-3, seed=0, dropout=0.0)
    weights = mnist.initial_weights(0)
    weights["dense2/bias"][3] = np.nan
    images, labels = _batch(8)
    with _session(graph) as session:
        graph.write(session, _start(weights))
        with pytest.raises(tf.errors.InvalidArgumentError, match=loop._NOT_FINITE.pattern):
            session.run(graph.train, {graph.images: images, graph.labels: labels})
        after = graph.read(session)
    assert after["global_step"] == 0
    assert all(np.array_equal(after[name], weights[name], equal_nan=True) for name in weights)


@pytest.mark.parametrize(
    "message", ["for inference, both shapes must be equal", "information on tensor 'images'", "invalid finance"]
)
def test_other_invalid_arguments_are_not_taken_for_a_non_finite_loss(message: str) -> None:
    assert not loop._NOT_FINITE.search(message)
    for value in ("Inf", "-Inf", "NaN", "Inf and NaN"):
        assert loop._NOT_FINITE.search(f"{message}: loss : Tensor had {value} values")


def test_the_loss_is_finite_even_for_extreme_logits() -> None:
    scores = tf.constant([[1e5] + [-1e5] * 9])
    assert np.isfinite(mnist.losses(scores, tf.constant([4]))).all()


def test_new_parameter_servers_are_not_ready() -> None:
    graph = graphs.build(Cluster(), learning_rate=1e-3, seed=0, dropout=0.0)
    with _session(graph) as session:
        assert graph.read_phase(session) == graphs.NEW
        graph.set_phase(session, graphs.READY)
        assert graph.read_phase(session) == graphs.READY


@pytest.mark.parametrize("servers", [1, 2, 3, 11])
def test_large_weights_are_on_every_parameter_server_and_small_ones_on_the_first(servers: int) -> None:
    """ML Engine's tiers have 3 and 11 parameter servers, among which 1,024 columns cannot be split evenly."""
    graph = graphs.build(_cluster(servers), learning_rate=1e-3, seed=0)
    shards = graph.variables["dense1/kernel"]
    assert {shard.device for shard in shards} == {f"/job:ps/task:{number}/device:CPU:0" for number in range(servers)}
    assert sum(shard.shape[1] for shard in shards) == 1024
    assert len(shards) >= graphs.PIECES
    assert {graph.variables[name][0].device for name in ("conv1/kernel", "global_step")} == {
        "/job:ps/task:0/device:CPU:0"
    }
    # The convolutions are computed on the worker, the dense layer's products on the parameter servers.
    convolutions = [node for node in graph.graph.as_graph_def().node if node.op.startswith("Conv2D")]
    assert convolutions
    assert {node.device for node in convolutions} == {"/job:worker/task:0/device:CPU:0"}
    products = [node for node in graph.graph.as_graph_def().node if node.op == "MatMul" and "/job:ps" in node.device]
    # Three for each shard: the forward pass, and the gradients with respect to inputs and weights.
    assert len(products) >= 3 * len(shards)


@pytest.mark.parametrize("compute", [tf.float32, tf.bfloat16])
def test_a_step_sends_three_tensors_in_each_direction(compute: tf.DType) -> None:
    """Each tensor is a separate message, so small tensors are sent together, and none is sent twice."""
    graph = graphs.build(_cluster(1), learning_rate=1e-3, seed=0, compute=compute)
    there, back = _travelling([graph.train["loss"].op, graph.train["state"].op])
    assert (len(there), len(back)) == (3, 3), (there, back)


def _travelling(ends: list[Any]) -> tuple[set[str], set[str]]:
    """The tensors and control edges that are sent to parameter servers, and those received from them.

    :param ends: the operations that a step runs; all their inputs are followed.
    """
    there: set[str] = set()
    back: set[str] = set()
    seen, todo = set(ends), list(ends)
    while todo:
        operation = todo.pop()
        sources = [(tensor.op, tensor.name) for tensor in operation.inputs]
        for source, name in [*sources, *((control, control.name) for control in operation.control_inputs)]:
            if ("/job:ps" in source.device) != ("/job:ps" in operation.device):
                (back if "/job:ps" in source.device else there).add(name)
            if source not in seen:
                seen.add(source)
                todo.append(source)
    return there, back


def _cluster_with(servers: int) -> tuple[Cluster, str]:
    """A running cluster and its target; without parameter servers, this process alone."""
    return _running(servers) if servers else (Cluster(), "")


def _running(servers: int) -> tuple[Cluster, str]:
    """Start a chief and parameter servers in this process. TensorFlow's servers run until the process exits."""
    nodes = {"chief": 1, "ps": servers}
    ports = iter(free_ports(sum(nodes.values())))
    tasks = {job: tuple(f"127.0.0.1:{next(ports)}" for _ in range(count)) for job, count in nodes.items()}
    spec = tf.compat.v1.train.ClusterSpec({job: list(addresses) for job, addresses in tasks.items()})
    started = [
        tf.compat.v1.train.Server(spec, job_name=job, task_index=index)
        for job, count in nodes.items()
        for index in range(count)
    ]
    return Cluster(tasks), started[0].target


def _cluster(servers: int) -> Cluster:
    nodes = {"chief": ["a:1"], "worker": ["a:2"], "ps": [f"a:{3 + number}" for number in range(servers)]}
    return Cluster.from_env({"TF_CONFIG": json.dumps({"cluster": nodes, "task": {"type": "worker", "index": 0}})})
