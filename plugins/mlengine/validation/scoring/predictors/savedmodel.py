"""The predictor for a TensorFlow SavedModel, which is called by its SignatureDef.

TensorFlow's description of the loaded function cannot be used for dtypes and names: it has Python's argument names
(``sepal_length`` for the input ``sepal-length``). So ``inputs`` contains the SignatureDef as Airflow's process has read
it.
"""

from __future__ import annotations

from typing import Any

from ..arrays import gather
from ..matching import match


class SavedModel:
    """The predictor for a SavedModel.

    :param options: in addition, ``signature``: its name; ``inputs``: [dtype, shape] by name; ``key``: an input that is
        returned as an output of the same name, or ``None``; ``outputs``: the outputs to return.
    """

    def __init__(self, path: str, options: dict[str, Any], columns: dict[str, Any]) -> None:
        import numpy as np
        import tensorflow as tf  # type: ignore[import-untyped,unused-ignore]

        self.np, self.tf, self.options = np, tf, options
        self.loaded = tf.saved_model.load(path)
        self.call = self.loaded.signatures[options["signature"]]
        self.inputs = {name: item for name, item in options["inputs"].items() if name != options["key"]}
        self.feeds = match(list(self.inputs), columns, given=options["columns"], features=options["features"])
        self.columns = sorted({column for names in self.feeds.values() for column in names})
        self.key_dtype = tf.as_dtype(options["inputs"][options["key"]][0]) if options["key"] else None
        sizes = {shape[0] for _, shape in self.inputs.values() if shape}
        self.batch_size = max(sizes) if sizes and max(sizes) > 0 else None

    def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        outputs: dict[str, Any]
        outputs, keys = self.answer(batch)
        rows = len(next(iter(batch.values())))
        if keys is not None and not self.np.array_equal(keys.reshape(-1), self.np.arange(rows)):
            raise ValueError("the keys of a batch came back in another order")
        return outputs

    def answer(self, batch: dict[str, Any], keys: list[int] | None = None) -> Any:
        """The outputs by name, and the keys that the model returned (``None`` if the model has none)."""
        rows = len(next(iter(batch.values())))
        feed = {}
        for name, columns in self.feeds.items():
            dtype, shape = self.inputs[name]
            np_dtype = dtype if dtype == "string" else self.tf.as_dtype(dtype).as_numpy_dtype
            size = None if shape is None else shape[1:]
            feed[name] = self.tf.constant(gather(batch, columns, np_dtype, size, self.options["scale"]))
        if self.key_dtype is not None:
            feed[self.options["key"]] = self.tf.constant(self.np.arange(rows) if keys is None else keys, self.key_dtype)
        answer = self.call(**feed)
        back = answer[self.options["key"]].numpy() if self.key_dtype is not None else None
        return {name: answer[name].numpy() for name in self.options["outputs"] if name in answer}, back


def load(path: str, options: dict[str, Any], columns: dict[str, Any]) -> SavedModel:
    return SavedModel(path, options, columns)
