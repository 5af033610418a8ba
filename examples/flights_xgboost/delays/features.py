"""The features of a model in training and validation: numbers are unchanged, strings become categories."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xgboost

Batch = Mapping[str, Any]  # column name → NumPy array


def load(model_dir: str) -> Callable[[Batch], np.ndarray]:
    """Load the scorer, which validation calls. Returns a function from a batch to probabilities."""
    booster = xgboost.Booster(model_file=f"{model_dir}/model.ubj")
    categories = json.loads(booster.attr("categories"))
    return lambda batch: booster.predict(matrix(batch, categories, booster.feature_names))


def matrix(batch: Batch, categories: Mapping[str, list[str]], names: list[str], target: Any = None) -> xgboost.DMatrix:
    """Encode a batch. A category becomes its index in the list stored with the model, an unknown one is missing."""
    values = [encode(batch[name], categories[name]) if name in categories else batch[name] for name in names]
    return xgboost.DMatrix(
        np.stack(values, axis=1).astype(np.float32),
        target,
        feature_names=names,
        feature_types=["c" if name in categories else "float" for name in names],
        enable_categorical=True,
    )


def encode(values: Any, categories: list[str]) -> np.ndarray:
    codes = {value: code for code, value in enumerate(categories)}
    return np.array([codes.get(value, np.nan) for value in values])
