"""``python -m trainer.predict --model gs://…/model --dataset gs://…``: ten held-out digits and what the model says.

Prints the key, prediction, label and score of each digit. ``--draw FILE.png`` also draws them with their scores, and
needs matplotlib (``pip install 'trainer[draw]'``).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.errors import TrainerError, UsageError
from trainer.files import manifest
from trainer.files.dataset import Split, open_dataset
from trainer.files.storage import open_store


@dataclass(frozen=True)
class Prediction:
    """The prediction for one example.

    :param key: the index of the example in the held-out set.
    """

    key: int
    prediction: int
    label: int
    scores: tuple[float, ...]


def predict(model_uri: str, split: Split, keys: Sequence[int]) -> list[Prediction]:
    """Load and verify the exported model, and predict these examples of ``split``.

    :raises TrainerError: there is no complete export.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    with tempfile.TemporaryDirectory(prefix="model-") as scratch:
        manifest.fetch(open_store(model_uri), "", Path(scratch))
        serve = tf.saved_model.load(scratch).signatures["serving_default"]
        chosen = np.asarray(keys, np.int64)
        result = serve(key=tf.constant(chosen), image=tf.constant(split.images[chosen].astype(np.float32) / 255))
        returned, scores = result["key"].numpy(), result["scores"].numpy()
    return [
        Prediction(int(key), int(row.argmax()), int(split.labels[key]), tuple(float(score) for score in row))
        for key, row in zip(returned, scores, strict=True)
    ]


def draw(predictions: Sequence[Prediction], split: Split, target: Path) -> None:
    """Draw the digits, each above a bar chart of its scores.

    :raises UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UsageError("--draw needs matplotlib: pip install 'trainer[draw]'") from error
    mpl.use("Agg")
    from matplotlib import pyplot

    columns = max(1, (len(predictions) + 1) // 2)
    figure, axes = pyplot.subplots(4, columns, figsize=(2 * columns, 6), height_ratios=[2, 1, 2, 1], squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for number, one in enumerate(predictions):
        row, column = 2 * (number // columns), number % columns
        axes[row][column].imshow(split.images[one.key].reshape(28, 28), cmap="gray_r")
        axes[row][column].set_title(
            f"{one.prediction} (is {one.label})", color="C2" if one.prediction == one.label else "C3"
        )
        bars = axes[row + 1][column]
        bars.axis("on")
        bars.bar(range(10), one.scores)
        bars.set(ylim=(0, 1), xticks=range(10), yticks=[])
    figure.tight_layout()
    figure.savefig(target, dpi=100)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("trainer.predict", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", required=True, help="directory or gs:// prefix of an export")
    parser.add_argument("--dataset", required=True, help="directory or gs:// prefix of a dataset version")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="which digits (default: %(default)s)")
    parser.add_argument("--draw", type=Path, help="also draw them into this PNG file")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        split = open_dataset(arguments.dataset).load("heldout")
        count = min(arguments.count, len(split))
        keys = np.random.default_rng(arguments.seed).choice(len(split), count, replace=False)
        predictions = predict(arguments.model, split, sorted(int(key) for key in keys))
        _write(predictions)
        if arguments.draw:
            draw(predictions, split, arguments.draw)
            sys.stdout.write(f"drawn: {arguments.draw}\n")
    except TrainerError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _write(predictions: Sequence[Prediction]) -> None:
    sys.stdout.write("  key  prediction  label  score\n")
    for one in predictions:
        mark = "" if one.prediction == one.label else "  wrong"
        sys.stdout.write(f"{one.key:5d}  {one.prediction:10d}  {one.label:5d}  {max(one.scores):.3f}{mark}\n")


if __name__ == "__main__":
    sys.exit(main())
