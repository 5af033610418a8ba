"""Creates the good and bad models that validation is tested with, in one TensorFlow process.

A script, run with a Python that has TensorFlow: ``make_models.py MNIST_DIR OUT_DIR``. Each model is a folder in
``OUT_DIR`` that looks like a trainer's ``model/``, with ``MANIFEST.json`` if one of this project's trainers would write
one.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]

HIDDEN = 64
Weights = dict[str, Any]


def read(path: Path) -> Any:
    data = path.read_bytes()
    shape = [int.from_bytes(data[4 + 4 * at : 8 + 4 * at], "big") for at in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def train(images: Any, labels: Any, epochs: int) -> Weights:
    """Train a small network, accurate enough for any minimum below 0.95.

    Uses NumPy, because importing Keras alone takes seconds.
    """
    random = np.random.default_rng(1)
    shapes = {"w1": (784, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, 10), "b2": (10,)}
    weights = {
        name: (random.normal(0, (2 / shape[0]) ** 0.5, shape) if len(shape) > 1 else np.zeros(shape)).astype(np.float32)
        for name, shape in shapes.items()
    }
    mean, square = ({name: np.zeros_like(value) for name, value in weights.items()} for _ in range(2))
    for step, rows in enumerate(
        np.concatenate([random.permutation(len(labels)).reshape(-1, 100) for _ in range(epochs)]), start=1
    ):
        for name, slope in slopes(weights, images[rows], labels[rows]).items():  # Adam
            mean[name] += 0.1 * (slope - mean[name])
            square[name] += 0.001 * (slope**2 - square[name])
            rate = 0.002 * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
            weights[name] -= rate * mean[name] / (np.sqrt(square[name]) + 1e-7)
    return weights


def slopes(weights: Weights, images: Any, labels: Any) -> Weights:
    hidden = np.maximum(images @ weights["w1"] + weights["b1"], 0)
    logits = hidden @ weights["w2"] + weights["b2"]
    scores = np.exp(logits - logits.max(1, keepdims=True))
    error = (scores / scores.sum(1, keepdims=True) - np.eye(10, dtype=np.float32)[labels]) / len(labels)
    back = error @ weights["w2"].T * (hidden > 0)
    return {"w1": images.T @ back, "b1": back.sum(0), "w2": hidden.T @ error, "b2": error.sum(0)}


def forward(module: Any, image: Any) -> Any:
    hidden = tf.nn.relu(tf.matmul(image, module.w1) + module.b1)
    return tf.nn.softmax(tf.matmul(hidden, module.w2) + module.b2)


class Maker:
    def __init__(self, out: Path, weights: Weights) -> None:
        self.out, self.weights = out, weights

    def make(
        self,
        name: str,
        *,
        weights: Weights | None = None,
        dtype: Any = tf.float32,
        signature: str = "serving_default",
        body: Any = None,
        manifest: bool = True,
        device: str = "",
        image: str = "image",
        scale: float = 1.0,
    ) -> Path:
        """Export a model. ``body`` makes its outputs of key and scores; the model divides its input by ``scale``."""
        module = tf.Module()
        for key, value in (weights or self.weights).items():
            setattr(module, key, tf.Variable(value, name=key))

        def serve(key: Any, pixels: Any) -> dict[str, Any]:
            if device:
                with tf.device(device):
                    pixels = tf.identity(pixels)
            scores = forward(module, tf.cast(pixels, tf.float32) / scale)
            return body(key, scores) if body else {"key": tf.identity(key), "scores": scores}

        specs = [tf.TensorSpec([None], tf.int64, name="key"), tf.TensorSpec([None, 784], dtype, name=image)]
        module.serve = tf.function(serve, input_signature=specs)
        target = self.out / name
        tf.saved_model.save(module, str(target), signatures={signature: module.serve})
        if manifest:
            write_manifest(target)
        return target


def write_manifest(target: Path) -> None:
    files = {
        path.relative_to(target).as_posix(): {
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(target.rglob("*"))
        if path.is_file() and path.name != "MANIFEST.json"
    }
    manifest = {"format": 1, "files": files, "step": 1000, "created": "2026-11-23T00:00:00+00:00"}
    (target / "MANIFEST.json").write_text(json.dumps(manifest))


def make_keras(out: Path, weights: Weights) -> None:
    """Export the same network as a beginner might write it.

    It uses Keras, an input whose name is not a Python identifier, and an adapted lookup layer.
    """
    import keras  # type: ignore[import-not-found]

    pixels = keras.Input((784,), name="sepal-length")
    lookup = keras.layers.StringLookup()
    lookup.adapt(np.array(["0", "1", "2"]))
    first = lookup(keras.layers.Lambda(lambda x: tf.strings.as_string(tf.cast(x[:, :1], tf.int32)))(pixels))
    hidden = keras.layers.Dense(HIDDEN, activation="relu", name="hidden")(pixels)
    unused = keras.layers.Lambda(lambda x: tf.cast(x, tf.float32) * 0.0)(first)
    scores = keras.layers.Dense(10, activation="softmax", name="scores")(keras.layers.Add()([hidden, unused]))
    model = keras.Model(pixels, scores)
    model.get_layer("hidden").set_weights([weights["w1"], weights["b1"]])
    model.get_layer("scores").set_weights([weights["w2"], weights["b2"]])
    model.export(str(out / "keras"), verbose=False)


def slightly_worse(weights: Weights, images: Any, labels: Any, rows: int) -> Weights:
    """The same network with its last layer changed so that it misclassifies ``rows`` more rows, or slightly more."""

    def right(candidate: Weights) -> int:
        hidden = np.maximum(images @ candidate["w1"] + candidate["b1"], 0)
        return int(((hidden @ candidate["w2"] + candidate["b2"]).argmax(1) == labels).sum())

    want = right(weights) - rows
    low, high = 0.0, 50.0
    for _ in range(40):  # lower the bias of one class: the lower it is, the more rows of that class are misclassified
        middle = (low + high) / 2
        bent = {**weights, "b2": weights["b2"] - np.eye(10, dtype=np.float32)[8] * np.float32(middle)}
        low, high = (middle, high) if right(bent) > want else (low, middle)
    return {**weights, "b2": weights["b2"] - np.eye(10, dtype=np.float32)[8] * np.float32(high)}


def one_score(key: Any, scores: Any) -> dict[str, Any]:
    """The signature does not say how many scores a row has."""
    columns = tf.shape(key)[0] * 0 + 1
    return {"key": tf.identity(key), "scores": tf.slice(scores, [0, 0], tf.stack([-1, columns]))}


def spin(key: Any, scores: Any) -> dict[str, Any]:
    """An endless while loop, whose condition always holds. The names of its operations do not reveal it."""
    total = tf.while_loop(lambda x: x >= 0.0, lambda x: tf.abs(x) + 0.0, [tf.reduce_sum(scores) * 0.0])[0]
    return {"key": tf.identity(key), "scores": scores + total}


def gorge(key: Any, scores: Any) -> dict[str, Any]:
    """Allocates 64 GB."""
    side = tf.cast(tf.shape(key)[0] * 0 + 126_491, tf.int32)
    return {"key": tf.identity(key), "scores": scores + 0.0 * tf.reduce_mean(tf.random.uniform([side, side]))}


def main(data: Path, out: Path) -> None:
    images, held = (read(data / f"{split}-images-idx3-ubyte").reshape(-1, 784) / 255 for split in ("train", "t10k"))
    labels, truth = (read(data / f"{split}-labels-idx1-ubyte").astype(np.int64) for split in ("train", "t10k"))
    images, held = images.astype(np.float32), held.astype(np.float32)
    good = train(images, labels, 4)
    maker = Maker(out, good)
    maker.make("good")
    maker.make("foreign", manifest=False)
    maker.make("slightly_worse", weights=slightly_worse(good, held, truth, 12))
    maker.make("worse", weights=slightly_worse(good, held, truth, 250))
    random = np.random.default_rng(1)
    noise = {key: random.normal(0, 0.05, value.shape).astype(np.float32) for key, value in good.items()}
    maker.make("untrained", weights=noise)
    maker.make("nan", weights={**good, "w2": np.full_like(good["w2"], np.nan)})
    turned = np.arange(10)
    turned[[3, 5]] = [5, 3]
    maker.make("swapped_labels", weights={**good, "w2": good["w2"][:, turned], "b2": good["b2"][turned]})
    maker.make("other_signature", signature="predict")
    maker.make("wrong_dtype", dtype=tf.float64)
    maker.make("cluster_device", device="/job:ps/task:0")
    maker.make("lost_keys", body=lambda key, scores: {"key": tf.abs(key), "scores": scores})
    maker.make("logits", body=lambda key, scores: {"key": tf.identity(key), "scores": scores * 3.0})
    maker.make(
        "company", body=lambda key, scores: {"key": tf.identity(key), "scores": tf.nn.softmax(tf.cumsum(scores))}
    )
    maker.make("sigmoid", body=lambda key, scores: {"key": tf.identity(key), "scores": scores[:, :1]})
    maker.make("regression", body=lambda key, scores: {"key": tf.identity(key), "scores": scores[:, 0]})
    maker.make("nine_classes", body=lambda key, scores: {"key": tf.identity(key), "scores": scores[:, :9]})
    maker.make("hidden_sigmoid", body=one_score)
    maker.make("large_scores", body=lambda key, scores: {"key": tf.identity(key), "scores": scores * 1e5})
    maker.make("bytes", dtype=tf.uint8, image="1st", scale=255.0)
    maker.make("local_gpu", device="/GPU:0")
    make_keras(out, good)
    maker.make("hangs", body=spin)
    maker.make("gorges", body=gorge)

    def write(key: Any, scores: Any) -> dict[str, Any]:
        tf.io.write_file("written-by-the-model", "x")
        return {"key": tf.identity(key), "scores": scores}

    maker.make("writes", body=write)
    # As after a full disk, without a manifest that would reveal it.
    truncated = maker.make("truncated", manifest=False) / "variables" / "variables.data-00000-of-00001"
    truncated.write_bytes(truncated.read_bytes()[:1000])
    # The same number of bytes, but changed after the manifest was written.
    damaged = maker.make("damaged") / "variables" / "variables.data-00000-of-00001"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
