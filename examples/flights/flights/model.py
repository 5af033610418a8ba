"""The model: columns in, a probability out. It includes the preprocessing, so that serving needs no other code."""

from __future__ import annotations

from typing import Any

import keras

HASHED = ("dest", "maker")  # columns with many values, in which new values appear


def build(columns: dict[str, str], statistics: dict[str, Any]) -> keras.Model:
    """A Keras model with one input for each column, named as the column.

    :param columns: dtype by name.
    :param statistics: the statistics of the training rows in the manifest, which are the same for all replicas.
    """
    inputs, features = {}, []
    for name, dtype in columns.items():
        text = dtype == "string"
        inputs[name] = keras.Input((1,), name=name, dtype="string" if text else "float32")
        features.append(
            category(inputs[name], name, statistics[name]) if text else number(inputs[name], statistics[name])
        )
    x = keras.layers.Concatenate()(features)
    x = keras.layers.Dense(128, activation="relu")(x)
    x = keras.layers.Dense(64, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="late")(x))


def number(values: Any, statistics: dict[str, Any]) -> Any:
    """Scale a number. A missing value becomes the mean."""
    scaled = keras.layers.Normalization(mean=statistics["mean"], variance=statistics["std"] ** 2)(values)
    return keras.ops.where(keras.ops.isnan(scaled), 0.0, scaled)


def category(values: Any, name: str, statistics: dict[str, Any]) -> Any:
    """Embed a string, by its hash or by its index in the list of known values."""
    if name in HASHED:
        ids, size = keras.layers.Hashing(256)(values), 256
    else:
        known = sorted(value for value, _ in statistics["top"])
        ids, size = keras.layers.StringLookup(vocabulary=known)(values), len(known) + 1
    return keras.layers.Flatten()(keras.layers.Embedding(size, 8)(ids))
