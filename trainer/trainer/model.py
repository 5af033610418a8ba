"""The model outside of the cluster: held-out evaluation, and the export for serving.

Both use weights that were fetched into this process, so the export contains nothing that refers to the cluster.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import mnist
from trainer.errors import DamagedError
from trainer.files import manifest
from trainer.files.dataset import Split
from trainer.files.storage import Store

log = logging.getLogger(__name__)
_BATCH = 500
_FEW = 50


@dataclass(frozen=True)
class Evaluation:
    """The results on held-out examples.

    :param confusion: the number of examples for each ``[label, prediction]``.
    :param wrong: the indices of misread examples.
    """

    loss: float
    accuracy: float
    per_class: tuple[float, ...]
    confusion: np.ndarray
    wrong: np.ndarray


class LocalModel(tf.Module):  # type: ignore[misc]
    """The model with its weights in local variables, for evaluation and export."""

    def __init__(self) -> None:
        super().__init__()
        self._weights = {name: tf.Variable(tf.zeros(shape), name=name) for name, shape in mnist.SHAPES.items()}

    def load(self, values: Mapping[str, np.ndarray]) -> None:
        for name, variable in self._weights.items():
            variable.assign(values[name])

    def is_sound(self, split: Split) -> bool:
        """Whether the loss of a few examples is finite, the minimum for weights to be saved."""
        losses, _ = self._test(tf.constant(split.images[:_FEW]), tf.constant(split.labels[:_FEW]))
        return bool(np.isfinite(losses.numpy()).all())

    def evaluate(self, split: Split, parts: int = 1) -> Evaluation:
        """Compute the loss, and the accuracy over all examples and for each class.

        :param parts: the number of batches to compute in parallel. An operation uses only this replica's share of the
            cores. Once the other replicas have exited, parallel batches use their cores too.
        """
        with ThreadPoolExecutor(parts) as pool:
            losses, predictions = zip(*pool.map(self._test_batch, split.batches(_BATCH)), strict=True)
        predicted = np.concatenate(predictions)
        confusion = np.zeros((mnist.CLASSES, mnist.CLASSES), np.int64)
        np.add.at(confusion, (split.labels, predicted), 1)
        counts = np.maximum(confusion.sum(axis=1), 1)
        right = np.diag(confusion)
        return Evaluation(
            loss=float(np.concatenate(losses).mean()),
            accuracy=float(right.sum() / len(split)),
            per_class=tuple(float(value) for value in right / counts),
            confusion=confusion,
            wrong=np.flatnonzero(predicted != split.labels),
        )

    def _test_batch(self, batch: Split) -> tuple[np.ndarray, np.ndarray]:
        losses, predictions = self._test(tf.constant(batch.images), tf.constant(batch.labels))
        return losses.numpy(), predictions.numpy()

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec([None, mnist.PIXELS], tf.uint8), tf.TensorSpec([None], tf.uint8)]
    )
    def _test(self, images: Any, labels: Any) -> Any:
        logits = mnist.logits(self._weights, tf.cast(images, tf.float32) / 255.0)
        return mnist.losses(logits, tf.cast(labels, tf.int32)), tf.argmax(logits, axis=1)

    def save(self, directory: Path) -> None:
        """Write a SavedModel with one signature: ``key, image -> key, scores``.

        It contains only the eight weights: no optimizer and no training function.
        """
        served = tf.Module()
        served.weights = [self._weights[name] for name in mnist.SHAPES]
        names = list(mnist.SHAPES)

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[
                tf.TensorSpec([None], tf.int64, name="key"),
                tf.TensorSpec([None, mnist.PIXELS], tf.float32, name="image"),
            ]
        )
        def serve(key: Any, image: Any) -> dict[str, Any]:
            weights = dict(zip(names, served.weights, strict=True))
            return {"key": tf.identity(key), "scores": tf.nn.softmax(mnist.logits(weights, image))}

        served.serve = serve
        tf.saved_model.save(served, str(directory), signatures={"serving_default": serve})


def export(model: LocalModel, store: Store, step: int) -> bool:
    """Publish the model at the root of ``store``. Returns ``False`` if a complete export of the same step exists.

    The export of another step is withdrawn first, so a reader sees the old one, none, or the new one.
    """
    published: dict[str, Any] | None
    try:
        published = manifest.read(store, "")
    except DamagedError as error:
        log.warning("%s; it is replaced", error)
        published = {}
    if published is not None and published.get("step") == step:
        log.info("the model of step %d is already exported to %s", step, store.root)
        return False
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        model.save(Path(scratch))
        if published is not None:
            manifest.withdraw(store, "")
        manifest.publish(store, "", Path(scratch), step=step)
    log.info("exported the model of step %d to %s", step, store.root)
    return True
