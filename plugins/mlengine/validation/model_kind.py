"""Determines the kind of the model in a job's ``model/`` from the names of its files.

Each kind has a predictor in :mod:`mlengine.validation.scoring.predictors`. A model that no predictor can read needs a
scorer in the trainer's package.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from mlengine.core.errors import ModelError

GRAPH = "saved_model.pb"
SCORER = "scorer"

# The kinds by suffix. A file is a model of this kind if no other file in the folder is a model.
_SUFFIXES = {
    ".keras": "keras",
    ".onnx": "onnx",
    ".ubj": "xgboost",
    ".xgb": "xgboost",
    ".lgb": "lightgbm",
    ".joblib": "sklearn",
    ".pkl": "sklearn",
    ".pickle": "sklearn",
    ".pt2": "torch",
}
# File names in frameworks' own examples, for suffixes that do not identify the kind.
_NAMES = {"model.json": "xgboost", "model.bst": "xgboost", "model.txt": "lightgbm", "lightgbm.txt": "lightgbm"}
KNOWN = (
    "a SavedModel, .keras, .onnx, XGBoost (model.json, .ubj), LightGBM (model.txt), scikit-learn (.joblib, .pkl), .pt2"
)


@dataclass(frozen=True)
class ModelKind:
    """A model's kind and its path below the model's folder: a folder for a SavedModel, else a file."""

    kind: str
    path: str


def find_kind(files: Iterable[str]) -> ModelKind | None:
    """The model among ``files``, paths relative to the model's folder; ``None`` if no predictor can read any of them.

    Files next to a SavedModel, files below it and hidden files are ignored.

    :raises ModelError: there is more than one model.
    """
    names = sorted(name for name in files if not any(part.startswith(".") for part in name.split("/")))
    graphs = [posixpath.dirname(name) for name in names if posixpath.basename(name) == GRAPH]
    if graphs:
        depths = [len(graph.split("/")) if graph else 0 for graph in graphs]
        highest = [graph for graph, depth in zip(graphs, depths, strict=True) if depth == min(depths)]
        if len(highest) > 1:
            raise ModelError(
                f"the model's folder has {len(highest)} SavedModels: {', '.join(highest[:5])}",
                hint='export one, or give a scorer that loads them: scorer="package.module:function"',
            )
        return ModelKind("savedmodel", highest[0])
    found = [ModelKind(kind, name) for name in names if (kind := _kind(name))]
    if len(found) > 1:
        raise ModelError(
            f"the model's folder has {len(found)} models: {', '.join(item.path for item in found[:5])}",
            hint='export one, or give a scorer that loads them: scorer="package.module:function"',
        )
    return found[0] if found else None


def no_kind(folder: str, files: Iterable[str]) -> ModelError:
    """The error for a folder without a model of a known kind."""
    names = sorted(files)
    return ModelError(
        f"{folder}/ has no model of a known kind; found {', '.join(names[:5]) or 'no file'}",
        hint=f"export {KNOWN}; or give a scorer, scorer='package.module:function'; or use validation_level='files'",
    )


def _kind(name: str) -> str:
    base = posixpath.basename(name)
    return _NAMES.get(base) or _SUFFIXES.get(posixpath.splitext(base)[1], "")
