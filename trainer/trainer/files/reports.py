"""Reports of a training: ``progress.json``, ``metrics.jsonl`` and summaries for TensorBoard.

Progress is written in the background, at most every few seconds. An update is dropped if the previous write is still
running, so that reporting never delays a step. Metrics and summaries are written for each checkpoint by the replica
that evaluates it.
"""

from __future__ import annotations

import json
import logging
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import mnist
from trainer.errors import StorageError
from trainer.files.dataset import Split
from trainer.files.storage import Store
from trainer.model import Evaluation

log = logging.getLogger(__name__)
PROGRESS = "progress.json"
METRICS = "metrics.jsonl"
PROGRESS_SECONDS = 3.0


class Progress:
    """Writes the progress to ``progress.json`` and to the log."""

    def __init__(self, store: Store, total: int, batch: int, role: str) -> None:
        self._store, self._total, self._batch, self._role = store, total, batch, role
        self._seen: deque[tuple[float, int]] = deque(maxlen=20)
        self._next = 0.0
        self._writer: threading.Thread | None = None

    def update(self, step: int, loss: float | None, *, now: bool = False) -> None:
        """Record a step; call this after every step. Writes every few seconds, and always with ``now``.

        :param loss: the loss of the step; ``None`` if this process has made no step.
        """
        clock = time.monotonic()
        if clock < self._next and not now:
            return
        self._next = clock + PROGRESS_SECONDS
        if self._seen and step < self._seen[-1][1]:
            self._seen.clear()  # training returned to a checkpoint
        self._seen.append((clock, step))
        began, first = self._seen[0]
        elapsed = clock - began
        rate = (step - first) / elapsed if elapsed > 0.1 else 0.0
        # Neither value is known at the first report.
        speed = round(rate * self._batch, 1) if rate else None
        eta = round(max(0, self._total - step) / rate, 1) if rate else None
        shown = (f", loss {loss:.4f}" if loss is not None else "") + (f", {speed:.0f} examples/s" if speed else "")
        log.info("step %d of %d%s", step, self._total, shown)
        content = {
            "step": step,
            "of": self._total,
            "examples_per_second": speed,
            "loss": None if loss is None else round(loss, 6),
            "eta_seconds": eta,
            "updated": time.time(),
            "role": self._role,
        }
        if now and self._writer is not None:
            self._writer.join(30)
        if self._writer is None or not self._writer.is_alive():
            self._writer = threading.Thread(target=self._write, args=(json.dumps(content).encode(),), daemon=True)
            self._writer.start()
        if now:
            self._writer.join(30)

    def _write(self, content: bytes) -> None:
        try:
            self._store.write(PROGRESS, content)
        except StorageError as error:
            log.warning("progress not written: %s", error)


def read_progress(store: Store) -> dict[str, Any] | None:
    """The last written progress; ``None`` if there is none, or it cannot be read."""
    try:
        return dict(json.loads(store.read(PROGRESS)))
    except (StorageError, ValueError, TypeError):
        return None


def append_metrics(
    store: Store, step: int, train_loss: float | None, evaluation: Evaluation, *, last: int | None = None
) -> None:
    """Add the row of a step. Rows of later steps are dropped: they are from an earlier attempt that got further.

    The chief and the evaluator may add rows at the same time.

    :param train_loss: with ``None``, the loss in an earlier row of the same step is kept.
    :param last: rows from this step on are kept: the evaluator may finish after the chief has measured the last step.
    """
    row: dict[str, Any] = {
        "step": step,
        "wall_time": time.time(),
        "train_loss": train_loss,
        "test_loss": evaluation.loss,
        "test_accuracy": evaluation.accuracy,
        "per_class": [round(value, 6) for value in evaluation.per_class],
    }

    def add(content: bytes) -> bytes:
        rows = [(_step(line), line) for line in content.decode().splitlines()]
        before = [line for at, line in rows if at is not None and at < step]
        after = [line for at, line in rows if at is not None and last is not None and at >= max(last, step + 1)]
        known = [json.loads(line).get("train_loss") for at, line in rows if at == step and train_loss is None]
        new = {**row, "train_loss": known[-1] if known else train_loss}
        return ("\n".join([*before, json.dumps(new), *after]) + "\n").encode()

    store.update(METRICS, add)


def _step(line: str) -> int | None:
    """The step of a row; ``None`` if the line is damaged."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


class Summaries:
    """TensorBoard event files. Each grows on the local disk, and the entire file is copied to the store on every write.

    Each attempt adds its own file to the same directory, which TensorBoard shows as one run. The records are written as
    protocol buffers, because ``tf.summary.scalar`` and similar functions need TensorBoard installed.
    """

    def __init__(self, store: Store, scratch: Path | None = None) -> None:
        self._store = store
        self._directory = Path(tempfile.mkdtemp(prefix="summaries-", dir=scratch))
        self._writer = tf.summary.create_file_writer(str(self._directory))

    def write(
        self,
        step: int,
        *,
        train_loss: float | None,
        rate: float | None,
        evaluation: Evaluation,
        values: Mapping[str, np.ndarray],
        heldout: Split,
    ) -> None:
        """Write scalars, a histogram of each weight, the first filters, the confusion matrix, and misread digits."""
        summary = tf.compat.v1.Summary()
        scalars = {
            "loss/train": train_loss,
            "loss/test": evaluation.loss,
            "accuracy/test": evaluation.accuracy,
            "examples_per_second": rate,
        }
        scalars |= {f"accuracy_per_class/{digit}": value for digit, value in enumerate(evaluation.per_class)}
        for name, value in scalars.items():
            if value is not None:
                summary.value.add(tag=name, simple_value=value)
        for name in mnist.SHAPES:
            _add_histogram(summary, name, values[name])
        _add_image(summary, "filters/conv1", _filters(values["conv1/kernel"]))
        _add_image(summary, "confusion (row: label, column: prediction)", _confusion(evaluation.confusion))
        if len(evaluation.wrong):
            _add_image(summary, "misread", _tiles(heldout.images[evaluation.wrong[:25]].reshape(-1, 28, 28) / 255, 5))
        with self._writer.as_default():
            tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=step)
        self._writer.flush()
        for path in self._directory.iterdir():
            self._store.write(path.name, path.read_bytes())


def _add_histogram(summary: Any, tag: str, values: np.ndarray) -> None:
    counts, edges = np.histogram(values, bins=50)
    histogram = summary.value.add(tag=tag).histo
    histogram.min, histogram.max, histogram.num = float(values.min()), float(values.max()), float(values.size)
    histogram.sum, histogram.sum_squares = float(values.sum()), float(np.square(values).sum())
    histogram.bucket_limit.extend(edges[1:].tolist())
    histogram.bucket.extend(counts.tolist())


def _add_image(summary: Any, tag: str, picture: np.ndarray) -> None:
    """Add an image; ``picture`` is ``[h, w]`` in 0..1. The suffix is how TensorBoard numbers the images of a tag."""
    pixels = (np.clip(picture, 0, 1) * 255).astype(np.uint8)[:, :, None]
    image = summary.value.add(tag=f"{tag}/image/0").image
    image.height, image.width, image.colorspace = pixels.shape[0], pixels.shape[1], 1
    image.encoded_image_string = tf.io.encode_png(pixels).numpy()


def _filters(kernel: np.ndarray) -> np.ndarray:
    """One picture of the 32 filters of 5x5, each scaled to 0..1 and enlarged, with 8 tiles in a row."""
    images = kernel[:, :, 0, :].transpose(2, 0, 1)
    low, high = images.min(axis=(1, 2), keepdims=True), images.max(axis=(1, 2), keepdims=True)
    scaled = (images - low) / np.maximum(high - low, 1e-12)
    return _tiles(np.kron(scaled, np.ones((1, 8, 8))), 8)


def _confusion(counts: np.ndarray) -> np.ndarray:
    """A picture of the confusion matrix, brighter for larger shares of a label.

    The square root makes rare confusions visible.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.kron(np.sqrt(shares), np.ones((24, 24))))


def _tiles(images: np.ndarray, columns: int) -> np.ndarray:
    """Arrange images ``[n, h, w]`` in one picture ``[H, W]``, with a line between tiles."""
    rows = -(-len(images) // columns)
    padded = np.pad(images, ((0, rows * columns - len(images)), (0, 1), (0, 1)), constant_values=0.5)
    height, width = padded.shape[1:]
    return padded.reshape(rows, columns, height, width).transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
