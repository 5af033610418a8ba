"""Checkpoints in TensorFlow's own format, visible only when complete, on a local disk or in a bucket.

::

    <train dir>/checkpoints/00000500-1f3a9c04/ckpt.index
                                              ckpt.data-00000-of-00001
                                              MANIFEST.json      written last: without it, there is no checkpoint

A restart continues from the newest complete checkpoint. ``tf.train.load_checkpoint`` can read the files too. The names
are those of :data:`trainer.mnist.SHAPES`, each also with Adam's ``/adam_m`` and ``/adam_v``, ``global_step`` and
``shares``. Values are stored unsharded, so that a cluster with another number of parameter servers can continue.
"""

from __future__ import annotations

import logging
import re
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer.errors import DamagedError, LossNotFiniteError, MissingError, StorageError
from trainer.files import manifest
from trainer.files.storage import Store, retried

log = logging.getLogger(__name__)
PREFIX = "checkpoints/"
KEEP = 3
_DIRECTORY = re.compile(rf"{PREFIX}(\d{{8,}})-[0-9a-f]{{8}}")  # a checkpoint, complete or not


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    :param name: its directory below the train dir.
    """

    step: int
    name: str


class Checkpoints:
    """The checkpoints of one training. Only the chief writes them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self) -> list[Checkpoint]:
        """The complete checkpoints, oldest first."""
        found = []
        for path in self._store.ls(PREFIX):
            directory, _, name = path.rpartition("/")
            number = directory.removeprefix(PREFIX).partition("-")[0]
            if name == manifest.NAME and number.isdigit():
                found.append(Checkpoint(int(number), directory))
        return sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.name))

    def save(self, step: int, values: Mapping[str, np.ndarray]) -> Checkpoint:
        """Write a checkpoint. Deletes all but the newest few, and incomplete ones of earlier steps.

        :raises LossNotFiniteError: a weight is NaN or infinite; nothing is written.
        :raises StorageError: it could not be written; the earlier checkpoints are unchanged.
        """
        bad = [name for name, value in values.items() if not np.isfinite(value).all()]
        if bad:
            raise LossNotFiniteError(f"at step {step}, {bad[0]} has values that are not finite; not saved")
        before = self.list()
        checkpoint = Checkpoint(step, f"{PREFIX}{step:08d}-{uuid.uuid4().hex[:8]}")
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as scratch:
            retried(lambda: _write(Path(scratch), values))
            manifest.publish(self._store, checkpoint.name, Path(scratch), step=step)
        for old in before[: max(0, len(before) - KEEP + 1)]:
            self._remove(old)
        self._remove_incomplete(step)
        return checkpoint

    def load_newest(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """The newest complete checkpoint; ``None`` if there is none. Damaged ones are logged and skipped.

        :raises StorageError: a checkpoint could not be read. It may be undamaged, so no older one is used instead.
        """
        for checkpoint in reversed(self.list()):
            try:
                return checkpoint.step, self.load(checkpoint)
            except (DamagedError, MissingError) as error:
                log.warning("checkpoint %s cannot be used: %s", checkpoint.name, error)
        return None

    def load(self, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
        """Read and verify a checkpoint.

        :raises MissingError: a file is missing.
        :raises DamagedError: a file is damaged.
        :raises StorageError: a file could not be read.
        """
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as scratch:
            manifest.fetch(self._store, checkpoint.name, Path(scratch))
            try:
                reader = tf.train.load_checkpoint(f"{scratch}/ckpt")
                return {name: np.asarray(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()}
            except (tf.errors.OpError, ValueError, IndexError) as error:
                # The files match the manifest and are on the local disk, so what was written is not a checkpoint.
                raise DamagedError(f"{self._store.root}/{checkpoint.name} is no checkpoint: {error}") from error

    def _remove(self, checkpoint: Checkpoint) -> None:
        """Delete a checkpoint, its manifest first: without the manifest, readers ignore the other files."""
        try:
            self._store.delete(f"{checkpoint.name}/{manifest.NAME}")
            for name in self._store.ls(checkpoint.name + "/"):
                self._store.delete(name)
        except StorageError as error:
            log.warning("could not delete the old checkpoint %s: %s", checkpoint.name, error)

    def _remove_incomplete(self, step: int) -> None:
        """Delete the files of writers that were killed: directories of earlier steps that have no manifest."""
        try:
            names = self._store.ls(PREFIX)
            complete = {name.rpartition("/")[0] for name in names if name.endswith(f"/{manifest.NAME}")}
            for name in names:
                directory = name.rpartition("/")[0]
                found = _DIRECTORY.fullmatch(directory)
                if found and int(found[1]) < step and directory not in complete:
                    self._store.delete(name)
        except StorageError as error:
            log.warning("could not delete incomplete checkpoints: %s", error)


def _write(directory: Path, values: Mapping[str, np.ndarray]) -> None:
    """Write these values as TensorFlow checkpoint files to the local disk."""
    names = sorted(values)
    try:
        tf.raw_ops.SaveV2(
            prefix=str(directory / "ckpt"),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=[tf.constant(values[name]) for name in names],
        )
    except tf.errors.OpError as error:
        raise StorageError(f"cannot write a checkpoint in {directory}: {error.message}") from error
