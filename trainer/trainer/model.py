"""The model outside of the cluster: held-out evaluation, and the export that is served.

Both use weights that were fetched into this process, so nothing of the cluster is left in what they make.
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
    """On held-out examples. ``confusion[label, prediction]`` counts; ``wrong`` are indices of misread examples."""

    loss: float
    accuracy: float
    per_class: tuple[float, ...]
    confusion: np.ndarray
    wrong: np.ndarray


class LocalModel(tf.Module):  # type: ignore[misc]
    """The weights in local variables, and the two functions of them."""

    def __init__(self) -> None:
        super().__init__()
        self._weights = {name: tf.Variable(tf.zeros(shape), name=name) for name, shape in mnist.SHAPES.items()}

    def load(self, values: Mapping[str, np.ndarray]) -> None:
        for name, variable in self._weights.items():
            variable.assign(values[name])

    def is_sound(self, split: Split) -> bool:
        """Whether the loss of a few examples is a number: the least that weights must be good for to be kept."""
        losses, _ = self._test(tf.constant(split.images[:_FEW]), tf.constant(split.labels[:_FEW]))
        return bool(np.isfinite(losses.numpy()).all())

    def evaluate(self, split: Split, parts: int = 1) -> Evaluation:
        """Accuracy and loss, over all and for each class.

        :param parts: how many batches are computed at the same time. An operation uses only the share of the cores that
            is this replica's; when the other replicas have ended, more batches use their cores.
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
        """A SavedModel with one signature: ``key, image -> key, scores``.

        What is saved is a bare module of the eight weights: no optimizer, no training function.
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
    """Publish the model at the root of ``store``. A complete export of the same step is kept: then ``False``.

    Another step's export is withdrawn first, so that a reader sees the old one, none, or the new one.
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
