"""The predictor for a ``.keras`` file. Its inputs are those of a functional or sequential model, by their names.

The classes of the trainer's package that the model uses are imported here, as Keras does not import them. Of a
function, such as an activation, the file contains only the name.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from ..arrays import gather
from ..matching import match
from . import main_module


class KerasModel:
    def __init__(self, path: str, options: dict[str, Any], columns: dict[str, Any]) -> None:
        import keras  # type: ignore[import-not-found,unused-ignore]
        import numpy as np

        self.np, self.options = np, options
        objects = _custom_objects(path)
        try:
            self.model = keras.saving.load_model(path, custom_objects=objects, compile=False)
        except TypeError as error:  # the message starts with the whole model, and the cause is at its end
            cause = str(error).rpartition("Exception encountered: ")[2].partition(" Full object config:")[0]
            if function := re.match(r"Could not locate function '(?:.*>)?(.+?)'", cause):
                raise ValueError(
                    f"the model needs the function {function[1]}, and the file does not say in which module it is: make"
                    " it a layer, which is a class, or give a scorer"
                ) from error
            raise TypeError(cause) from error
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
            return {name: self.np.asarray(value) for name, value in zip(self._output_names(len(answer)), answer)}
        return self.np.asarray(answer)

    def _output_names(self, count: int) -> list[str]:
        """The names of a list of outputs: those of their layers, or ``output_0`` …, as in a SavedModel of the model."""
        numbered = [f"output_{at}" for at in range(count)]
        names = list(getattr(self.model, "output_names", []))
        return numbered if self.options["output"] in numbered or len(set(names)) != count else names


def _custom_objects(path: str) -> dict[str, Any]:
    """The classes and functions in the file's configuration that are not Keras' own, by their names in it.

    :raises ValueError: one of them is in the trainer's main module, or its module cannot be imported.
    """
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    found = {}
    for module, name, registered in _named(config):
        if module is None:
            raise main_module(name)
        try:
            imported = import_module(module)
        except ImportError as error:
            raise ValueError(f"the model needs {name} of {module}, which cannot be imported: {error}") from error
        if hasattr(imported, name):  # otherwise, Keras has registered it under another name
            found[registered] = getattr(imported, name)
    return found


def _named(config: Any) -> Iterator[tuple[str | None, str, str]]:
    """The module, name and registered name of each class and function from modules other than Keras' own.

    The module is ``None`` for the trainer's main module, whose name Keras does not store.
    """
    if isinstance(config, list):
        for one in config:
            yield from _named(one)
    if not isinstance(config, dict):
        return
    module, registered = config.get("module"), config.get("registered_name")
    if isinstance(registered, str) and (module is None or module.split(".")[0] not in {"keras", "builtins"}):
        name = registered if config.get("class_name") == "function" else str(config.get("class_name"))
        yield None if module == "__main__" else module, name.rpartition(">")[2], registered
    for key, value in config.items():
        if key != "compile_config":  # losses and metrics are not loaded
            yield from _named(value)


def load(path: str, options: dict[str, Any], columns: dict[str, Any]) -> KerasModel:
    return KerasModel(path, options, columns)
