"""A ``.keras`` file. Its inputs are those of a functional or sequential model, by their names."""

from __future__ import annotations

from typing import Any

from ..arrays import gather
from ..matching import match


class KerasModel:
    def __init__(self, path: str, options: dict[str, Any], columns: dict[str, Any]) -> None:
        import keras  # type: ignore[import-not-found,unused-ignore]
        import numpy as np

        self.np, self.options = np, options
        self.model = keras.saving.load_model(path, compile=False)
        inputs = getattr(self.model, "inputs", None)
        if not inputs:
            raise ValueError(
                "the Keras model does not say which inputs it has; export it with model.export(), or give a scorer"
            )
        self.inputs = {tensor.name: tensor for tensor in inputs}
        self.feeds = match(list(self.inputs), columns, given=options["columns"], features=options["features"])
        self.columns = sorted({column for names in self.feeds.values() for column in names})
        sizes = {tensor.shape[0] for tensor in inputs if len(tensor.shape)}
        self.batch_size = next(iter(sizes)) if len(sizes) == 1 else None

    def predict(self, batch: dict[str, Any]) -> Any:
        feed = {}
        for name, columns in self.feeds.items():
            tensor = self.inputs[name]
            feed[name] = gather(batch, columns, str(tensor.dtype), tensor.shape[1:], self.options["scale"])
        tensors = feed if len(feed) > 1 else next(iter(feed.values()))
        if any(values.dtype == object for values in feed.values()):
            import tensorflow as tf  # type: ignore[import-untyped,unused-ignore]

            tensors = {name: tf.constant(values) for name, values in feed.items()}
            tensors = tensors if len(tensors) > 1 else next(iter(tensors.values()))
        answer = self.model(tensors, training=False)
        if isinstance(answer, dict):
            return {str(name): self.np.asarray(value) for name, value in answer.items()}
        if isinstance(answer, (list, tuple)):
            return {f"output_{at}": self.np.asarray(value) for at, value in enumerate(answer)}
        return self.np.asarray(answer)


def load(path: str, options: dict[str, Any], columns: dict[str, Any]) -> KerasModel:
    return KerasModel(path, options, columns)
