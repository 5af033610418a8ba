"""``python -m bench.loops NAME THREADS DATASET``: a training loop; each line ``N`` on stdin runs N steps.

Prints ``wall-seconds cpu-seconds`` for each line. The loops train the same model on the same batches with the same
number of threads:

``seed``   the loop of the year 2017: TensorFlow 1's graph, float batches by ``feed_dict``, ``AdamOptimizer``
``fit``    ``keras.fit`` on arrays; ``fit10`` with ten steps per execution; ``fitdata`` on a ``tf.data`` pipeline
``ours``   the trainer in one process; ``float32`` in that type, also on CPUs for which the trainer chooses bfloat16;
           ``whole`` without lanes, so every operation is spread over the cores
``sgemm``  no training: large matrix products with as many operations as a step, which shows the peak speed of the cores
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf

from trainer import devices, mnist
from trainer.config import Config
from trainer.distributed import graph as graphs
from trainer.distributed import session as sessions
from trainer.distributed.cluster import Cluster
from trainer.files.dataset import Split, batches, open_dataset

v1 = tf.compat.v1
BATCH = 100
Run = Callable[[int], None]


def ours(split: Split, threads: int, *, whole: bool = False, precision: str = Config.precision) -> Run:
    """The trainer's own graph and session settings."""
    config, cluster = Config("", "", "", threads=threads, batch_size=BATCH), Cluster()
    lanes = 1 if whole else sessions.lanes(config, cluster)
    graph = graphs.build(cluster, learning_rate=1e-4, seed=0, lanes=lanes, compute=devices.compute_type(precision))
    proto = _threads(threads) if whole else sessions.session_config(config, cluster)
    session = v1.Session(graph=graph.graph, config=proto)
    weights = mnist.initial_weights(0)
    values = dict(weights)
    for name, value in weights.items():
        values[name + "/adam_m"], values[name + "/adam_v"] = np.zeros_like(value), np.zeros_like(value)
    graph.write(session, {**values, "global_step": np.array(0, np.int64), "shares": np.zeros(1, np.int64)})
    source = batches(split, BATCH, 0)

    def run(steps: int) -> None:
        for _ in range(steps):
            images, labels = next(source)
            session.run(graph.train, {graph.images: images, graph.labels: labels})

    return run


def seed(split: Split, threads: int) -> Run:
    """The loop as it was written for TensorFlow r0.12, but with a numerically stable loss."""
    graph = tf.Graph()
    with graph.as_default():
        image, label = v1.placeholder(tf.float32, [None, 784]), v1.placeholder(tf.float32, [None, 10])
        keep = v1.placeholder(tf.float32, [])
        x = tf.reshape(image, [-1, 28, 28, 1])
        for channels in (32, 64):
            kernel = _weight([5, 5, int(x.shape[-1]), channels])
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, [1, 1, 1, 1], "SAME") + _bias(channels))
            x = tf.nn.max_pool2d(x, [1, 2, 2, 1], [1, 2, 2, 1], "SAME")
        x = tf.nn.relu(tf.matmul(tf.reshape(x, [-1, 3136]), _weight([3136, 1024])) + _bias(1024))
        scores = tf.matmul(v1.nn.dropout(x, keep_prob=keep), _weight([1024, 10])) + _bias(10)
        loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=label, logits=scores))
        train = v1.train.AdamOptimizer(1e-4).minimize(loss)
        start = v1.global_variables_initializer()
    session = v1.Session(graph=graph, config=_threads(threads))
    session.run(start)
    source = _float_batches(split)

    def run(steps: int) -> None:
        for _ in range(steps):
            images, labels = next(source)
            session.run([train, loss], {image: images, label: labels, keep: 0.5})

    return run


def fit(split: Split, threads: int, *, execution: int = 1, pipeline: bool = False) -> Run:
    """Keras 3 with its own layers, Adam and training loop."""
    import keras

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((28, 28, 1)),
        layers.Conv2D(32, 5, padding="same", activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(64, 5, padding="same", activation="relu"), layers.MaxPooling2D(),
        layers.Flatten(), layers.Dense(1024, activation="relu"), layers.Dropout(0.5), layers.Dense(10),
    ])  # fmt: skip
    if model.count_params() != mnist.PARAMETERS:
        raise ValueError(f"not the same model: {model.count_params()} parameters")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-4), loss, steps_per_execution=execution)
    images = (split.images / np.float32(255)).reshape(-1, 28, 28, 1)

    def run(steps: int) -> None:
        count = steps * BATCH
        start = np.random.default_rng().integers(0, len(images) - count)
        part, labels = images[start : start + count], split.labels[start : start + count]
        if pipeline:
            data = tf.data.Dataset.from_tensor_slices((part, labels)).shuffle(count).batch(BATCH).prefetch(2)
            model.fit(data, verbose=0)
        else:
            model.fit(part, labels, batch_size=BATCH, verbose=0)

    return run


def sgemm(_split: Split, threads: int) -> Run:
    """The roofline: the arithmetic of a step as matrix products of 2,048 rows and columns."""
    size = 2048
    graph = tf.Graph()
    with graph.as_default():
        left, right = (v1.Variable(tf.random.normal([size, size])) for _ in range(2))
        product = tf.matmul(left, right).op
        start = v1.global_variables_initializer()
    session = v1.Session(graph=graph, config=_threads(threads))
    session.run(start)
    share = BATCH * operations() / (2 * size**3)

    def run(steps: int) -> None:
        for _ in range(round(steps * share)):
            session.run(product)

    return run


def operations() -> int:
    """The operations of a step for one example: the forward pass and the gradients.

    Gradients are with respect to weights and inputs; the first layer needs none for its input, the image.
    """
    forward = {name: 2 * prod(shape) for name, shape in mnist.SHAPES.items() if name.endswith("kernel")}
    forward["conv1/kernel"] *= 28 * 28
    forward["conv2/kernel"] *= 14 * 14
    return 3 * sum(forward.values()) - forward["conv1/kernel"]


LOOPS: dict[str, Callable[[Split, int], Run]] = {
    "sgemm": sgemm,
    "seed": seed,
    "ours": ours,
    "float32": lambda split, threads: ours(split, threads, precision="float32"),
    "whole": lambda split, threads: ours(split, threads, whole=True),
    "fit": fit,
    "fit10": lambda split, threads: fit(split, threads, execution=10),
    "fitdata": lambda split, threads: fit(split, threads, pipeline=True),
}


def _float_batches(split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for images, labels in batches(split, BATCH, 0):
        yield images / np.float32(255), np.eye(10, dtype=np.float32)[labels]


def _weight(shape: list[int]) -> Any:
    return v1.Variable(v1.truncated_normal(shape, stddev=0.1))


def _bias(size: int) -> Any:
    return v1.Variable(tf.constant(0.1, shape=[size]))


def _threads(threads: int) -> Any:
    return v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)


def main() -> None:
    name, threads, dataset = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    run = LOOPS[name](open_dataset(dataset).load("train"), threads)
    run(20)  # warm-up: compiles graphs and fills caches
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        wall, cpu = time.monotonic(), time.process_time()
        run(int(line))
        sys.stdout.write(f"{time.monotonic() - wall:.6f} {time.process_time() - cpu:.6f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
