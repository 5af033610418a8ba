"""The predictor with the trainer's own scorer ``package.module:function``.

``function(model_dir)`` returns ``predict(batch)``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


class Scorer:
    batch_size = None

    def __init__(self, path: str, options: dict[str, Any], columns: dict[str, Any]) -> None:
        name = options["scorer"]
        module_name, _, function_name = name.partition(":")
        try:
            make = getattr(import_module(module_name), function_name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"scorer {name!r} cannot be imported: {error}") from error
        self.call: Callable[[dict[str, Any]], Any] = make(path)
        if not callable(self.call):
            raise TypeError(
                f"scorer {name!r} returned {type(self.call).__name__} for the model's folder;"
                " it must return a function of a batch"
            )
        self.columns = list(columns)

    def predict(self, batch: dict[str, Any]) -> Any:
        return self.call(batch)


def load(path: str, options: dict[str, Any], columns: dict[str, Any]) -> Scorer:
    return Scorer(path, options, columns)
