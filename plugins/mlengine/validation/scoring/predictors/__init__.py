"""One module for each kind of model. Each has ``load(path, options)``, which returns a predictor.

``options`` is the part of the configuration about this model (:class:`mlengine.validation.scored_model.ScoredModel`):
``columns`` (column by input), ``features``, ``output``, ``scale``, ``classes``, and additional options of a kind.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# The package that is imported for each kind, by the module of this package that reads the kind.
FRAMEWORKS = {
    "savedmodel": "tensorflow",
    "keras": "keras",
    "onnx": "onnxruntime",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "sklearn": "sklearn",
    "torch": "torch",
}


class MissingFrameworkError(RuntimeError):
    """The trainer's environment cannot load a model of this kind."""


def main_module(name: str) -> ValueError:
    """The error for a model that needs ``name`` from the module that ``python -m`` ran: other processes lack it."""
    return ValueError(
        f"the model needs {name}, which is defined in the module that the trainer runs: no other process can load it."
        " Define it in another module of the trainer's package, and import it from there"
    )


def load(options: dict[str, Any], columns: dict[str, Any]) -> Any:
    """The predictor of ``options["path"]``, a model of ``options["kind"]``.

    :param columns: the dataset's columns: (dtype, shape) by name, in order.
    :raises MissingFrameworkError: the model's framework is not installed.
    """
    kind = options["kind"]
    framework = FRAMEWORKS.get(kind)
    if framework is not None:
        try:
            import_module(framework)
        except ImportError as error:
            raise MissingFrameworkError(f"{framework} ({error})") from error
    module = import_module("." + kind, __name__)
    return module.load(options["path"], options, columns)


def version(kind: str) -> dict[str, str]:
    """The version of a kind's framework, for the report."""
    framework = FRAMEWORKS.get(kind)
    if framework is None:
        return {}
    return {framework: str(getattr(import_module(framework), "__version__", "unknown"))}
