"""The model: two convolutions, a wide dense layer with dropout, ten classes. 3,274,634 parameters.

::

    image [n, 784] -> conv 5x5x32 -> pool 2 -> conv 5x5x64 -> pool 2 -> dense 1024 -> dropout 0.5 -> logits [n, 10]

Pure functions of weights and images, in plain TensorFlow operations. The graph of every trainer, the evaluation and the
exported model use the same functions. They are independent of where a weight is stored. Weights are always float32.
Training may compute the convolutions and the dense layer in bfloat16; evaluation and the exported model do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import tensorflow as tf

PIXELS = 784
CLASSES = 10
SHAPES: Mapping[str, tuple[int, ...]] = {
    "conv1/kernel": (5, 5, 1, 32),
    "conv1/bias": (32,),
    "conv2/kernel": (5, 5, 32, 64),
    "conv2/bias": (64,),
    "dense1/kernel": (7 * 7 * 64, 1024),
    "dense1/bias": (1024,),
    "dense2/kernel": (1024, CLASSES),
    "dense2/bias": (CLASSES,),
}
PARAMETERS = sum(prod(shape) for shape in SHAPES.values())
LARGE = "dense1/kernel"  # 98 % of the parameters

Weights = Mapping[str, tf.Tensor]


def initial_weights(seed: int) -> dict[str, np.ndarray]:
    """He initialisation: a normal distribution, truncated at two deviations, with variance 2 / fan-in; zero biases."""
    generator = np.random.default_rng(seed)
    weights = {}
    for name, shape in SHAPES.items():
        if name.endswith("bias"):
            weights[name] = np.zeros(shape, np.float32)
            continue
        values = generator.standard_normal(shape, np.float32)
        while (outside := np.abs(values) > 2).any():
            values[outside] = generator.standard_normal(int(outside.sum()), np.float32)
        # Truncation at two deviations reduces the standard deviation to 0.88.
        weights[name] = (values * np.sqrt(2 / prod(shape[:-1])) / 0.87962566).astype(np.float32)
    return weights


def features(weights: Weights, images: tf.Tensor, compute: tf.DType = tf.float32) -> tf.Tensor:
    """Both convolutions: ``[n, 784]`` floats in 0..1 to ``[n, 3136]`` values of the type ``compute``."""
    x = tf.cast(tf.reshape(images, [-1, 28, 28, 1]), compute)
    x = _convolution(x, weights["conv1/kernel"], weights["conv1/bias"])
    x = _convolution(x, weights["conv2/kernel"], weights["conv2/bias"])
    return tf.reshape(x, [-1, 7 * 7 * 64])


def product(inputs: tf.Tensor, other: tf.Tensor, *, transpose_a: bool = False) -> tf.Tensor:
    """The matrix product, computed in the type of ``inputs``, as float32."""
    return tf.cast(tf.matmul(inputs, tf.cast(other, inputs.dtype), transpose_a=transpose_a), tf.float32)


def head(weights: Weights, hidden: tf.Tensor, dropout: float = 0.0) -> tf.Tensor:
    """The last layers: pre-activations ``[n, 1024]`` of the dense layer to logits ``[n, 10]``."""
    x = tf.nn.relu(hidden + weights["dense1/bias"])
    if dropout:
        x = tf.nn.dropout(x, rate=dropout)
    return tf.matmul(x, weights["dense2/kernel"]) + weights["dense2/bias"]


def logits(weights: Weights, images: tf.Tensor) -> tf.Tensor:
    """The entire model as it is served, without dropout."""
    return head(weights, product(features(weights, images), weights[LARGE]))


def losses(scores: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Cross entropy of each example, from logits: numerically stable for large scores, unlike ``log(softmax)``."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=scores)


def learning_rate(initial: float, step: tf.Tensor, steps: int) -> tf.Tensor | float:
    """The learning rate of a step: falls linearly from ``initial`` to 0 after ``steps``; constant if ``steps`` is 0.

    With a constant rate, the accuracy varies by a percent from step to step, so the last step would decide the result.
    """
    if not steps:
        return initial
    return initial * tf.maximum(1.0 - tf.cast(step, tf.float32) / float(steps), 0.0)


def _convolution(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    x = tf.nn.conv2d(x, tf.cast(kernel, x.dtype), strides=1, padding="SAME")
    return tf.nn.max_pool2d(tf.nn.relu(tf.nn.bias_add(x, tf.cast(bias, x.dtype))), 2, 2, "SAME")
