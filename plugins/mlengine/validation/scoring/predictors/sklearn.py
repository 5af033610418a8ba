"""The predictor for a scikit-learn estimator or pipeline: ``.joblib`` or ``.pkl``. A classifier returns probabilities.

Loading such a file runs code of its author, the trainer. It is loaded only in this restricted process.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from ..arrays import gather
from ..matching import match_features
from . import main_module


class SklearnModel:
    batch_size = None

    def __init__(self, path: str, options: dict[str, Any], columns: dict[str, Any]) -> None:
        import numpy as np

        self.np, self.classes = np, options.get("classes")
        self.model = _read(path)
        names = getattr(self.model, "feature_names_in_", None)
        self.names: list[str] = [str(name) for name in names] if names is not None else []
        self.columns = match_features(self.names, columns, options["columns"])
        self.text = {name for name, (dtype, _) in columns.items() if dtype == "string"}
        self.categories = _categories(_inner(self.model))
        self.order = self._class_order()

    def _class_order(self) -> Any:
        """For each class of the dataset, its index in the estimator's classes, which are sorted; ``None`` if unused."""
        mine = getattr(self.model, "classes_", None)
        if mine is None or not hasattr(self.model, "predict_proba") or not self.classes:
            return None
        found = [_plain(one) for one in mine]
        order = [_place(found, one) for one in self.classes]
        if -1 in order and found == list(range(len(order))) and _framework(_inner(self.model)) == "xgboost":
            return found  # XGBoost accepts only the classes 0, 1, …
        if sorted(order) != list(range(len(found))):
            raise ValueError(
                f"the estimator has the classes {found[:12]}; the dataset has {list(self.classes)[:12]}. "
                "Train it on the values of the dataset's target, or give a scorer"
            )
        return order

    def predict(self, batch: dict[str, Any]) -> Any:
        if self.names:
            values = self._frame(batch)
        else:
            values = gather(batch, self.columns, "float64", None, 1.0)
            values = values.reshape(len(values), -1)
        if self.order is not None:
            return self.np.asarray(self.model.predict_proba(values))[:, self.order]
        return self.np.asarray(self.model.predict(values))

    def _frame(self, batch: dict[str, Any]) -> Any:
        """The batch as a data frame, as if pandas had read it from a file.

        Text has pandas' type for text, even in a batch that has only missing values. A model of LightGBM or XGBoost
        gets the categories with which it was trained.
        """
        import pandas as pd  # type: ignore[import-untyped,unused-ignore]

        text = pd.Series(["text"]).dtype  # object before pandas 3
        series = {name: pd.Series(batch[name], dtype=text if name in self.text else None) for name in self.columns}
        frame = pd.DataFrame({name: series[column] for name, column in zip(self.names, self.columns)})
        for name, make in self.categories.items():
            if name in frame:
                frame[name] = make(frame[name])
        return frame


def _framework(model: Any) -> str:
    return type(model).__module__.partition(".")[0]


def _inner(model: Any) -> Any:
    """The estimator that a search has found, that a calibration has wrapped, or that is the last step of a pipeline."""
    if hasattr(model, "best_estimator_"):
        return _inner(model.best_estimator_)
    if hasattr(model, "calibrated_classifiers_"):
        return _inner(model.calibrated_classifiers_[0].estimator)
    return _inner(model.steps[-1][1]) if hasattr(model, "steps") else model


def _categories(model: Any) -> dict[str, Callable[[Any], Any]]:
    """By feature, a function that converts its values to categories, for models of LightGBM and XGBoost."""
    framework = _framework(model)
    if framework == "lightgbm":
        from . import lightgbm

        found = lightgbm.categories_of(model.booster_)
        return {name: partial(lightgbm.with_categories, known=known) for name, known in found.items()}
    if framework == "xgboost":
        from . import xgboost

        found = xgboost.categories_of(model.get_booster())
        return {name: partial(xgboost.with_categories, known=known) for name, known in found.items()}
    return {}


def _place(classes: list[Any], wanted: Any) -> int:
    """The index of a class that is equal (1.0 and True are equal to 1), or else has the same text; -1 for none."""
    equal = [at for at, one in enumerate(classes) if one == wanted]
    alike = [at for at, one in enumerate(classes) if str(one) == str(wanted)]
    return [*equal, *alike, -1][0]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _read(path: str) -> Any:
    """Load the estimator in a file.

    :raises ValueError: the file needs a class of the trainer's main module, or has no estimator.
    """
    try:
        model = _loaded(path)
    except AttributeError as error:
        found = re.match(r"Can't get attribute '(.+?)' on <module '[\w.]*__main__'", str(error))
        if found is None:
            raise
        raise main_module(found[1]) from error
    if not hasattr(model, "predict"):
        raise ValueError(
            f"the file has an object of type {type(model).__name__}, which has no predict(): store the estimator or"
            " pipeline itself, or give a scorer"
        )
    return model


def _loaded(path: str) -> Any:
    if path.endswith((".joblib", ".jl")):
        import joblib  # type: ignore[import-untyped,unused-ignore]

        return joblib.load(path)
    with open(path, "rb") as file:  # noqa: PTH123
        return pickle.load(file)  # noqa: S301


def load(path: str, options: dict[str, Any], columns: dict[str, Any]) -> SklearnModel:
    return SklearnModel(path, options, columns)
