"""Exports models in the ways that TensorFlow and Keras offer: ``any_models_tensorflow.py TRAIN_NPZ OUT_DIR``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found]
import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]


def churn(train: dict[str, Any]) -> Any:
    """Named inputs of floats, integers and strings, and an adapted lookup layer."""
    tenure, charges = (keras.Input((1,), name=name) for name in ("tenure", "charges"))
    calls, plan = keras.Input((1,), name="calls", dtype="int64"), keras.Input((1,), name="plan", dtype="string")
    lookup = keras.layers.StringLookup(output_mode="one_hot")
    lookup.adapt(train["plan"].astype(str))
    scaled = [keras.layers.Rescaling(1 / 72)(tenure), keras.layers.Rescaling(1 / 120)(charges)]
    few = keras.layers.CategoryEncoding(num_tokens=9, output_mode="one_hot")(calls)
    numbers = keras.layers.Concatenate()([*scaled, few, lookup(plan)])
    churned = keras.layers.Dense(1, activation="sigmoid", name="churned")(numbers)
    model = keras.Model({"tenure": tenure, "charges": charges, "calls": calls, "plan": plan}, churned)
    weights = np.zeros((numbers.shape[-1], 1), np.float32)
    weights[:2, 0] = [-20, 20]
    model.get_layer("churned").set_weights([weights, np.zeros(1, np.float32)])
    return model


def save(module: Any, folder: Path, function: Any, *specs: Any) -> None:
    module.serve = tf.function(function, input_signature=list(specs))
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


def late(tenure: Any, charges: Any) -> Any:
    return tf.sigmoid(20 * (charges / 120 - tenure / 72))


def main(data: Path, out: Path) -> None:
    train = dict(np.load(data, allow_pickle=True))
    model = churn(train)
    model.export(str(out / "export"), verbose=False)
    (out / "keras").mkdir()
    model.save(out / "keras" / "churn.keras")

    def number(name: str, rows: int | None = None) -> Any:
        return tf.TensorSpec([rows], tf.float32, name=name)

    save(
        tf.Module(),
        out / "outputs",
        lambda tenure, charges: {"late": late(tenure, charges), "features": tf.stack([tenure, charges], 1)},
        *(number("tenure"), number("charges")),
    )
    save(
        tf.Module(),
        out / "batch",
        lambda tenure, charges: {"late": late(tenure, charges)},
        *(number("tenure", 16), number("charges", 16)),
    )
    save(
        tf.Module(),
        out / "matrix",
        lambda x: {"late": late(x[:, 0], x[:, 1])},
        tf.TensorSpec([None, 2], tf.float32, name="x"),
    )

    def shade(image: Any) -> dict[str, Any]:
        bands = tf.reduce_mean(tf.cast(image, tf.float32), axis=2)
        means = tf.stack([tf.reduce_mean(bands[:, low:high], axis=1) for low, high in ((0, 3), (3, 6), (6, 8))], 1)
        return {"label": tf.nn.softmax(means / 5)}

    save(tf.Module(), out / "bytes", shade, tf.TensorSpec([None, 8, 8], tf.uint8, name="image"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
