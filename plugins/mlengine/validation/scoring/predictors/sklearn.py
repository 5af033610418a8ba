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
from ..matching import MatchError, is_number, listed, match_features
from . import main_module

Form = Callable[[dict[str, Any]], Any]


class SklearnModel:
    batch_size = None

    def __init__(self, path: str, options: dict[str, Any], columns: dict[str, Any]) -> None:
        import numpy as np

        self.np, self.classes = np, options.get("classes")
        self.model = _read(path)
        self.text = {name for name, (dtype, _) in columns.items() if dtype == "string"}
        self.columns, self.forms = self._matched(columns, options["columns"])
        self.categories = _categories(_inner(self.model))
        self.order = self._class_order()

    def _matched(self, columns: dict[str, Any], given: dict[str, Any]) -> tuple[list[str], list[Form]]:
        """The columns that the estimator takes, and the form in which it takes them.

        A transformer of the trainer may not record on which columns it was trained. Then there are two forms, and the
        first that the estimator accepts is used.

        :raises MatchError: the dataset does not have these columns.
        """
        recorded = getattr(self.model, "feature_names_in_", None)
        if recorded is not None:
            names = [str(name) for name in recorded]
            found = match_features(names, columns, given)
            return found, [partial(self._frame, names=names, columns=found)]
        if hasattr(_first(self.model), "build_analyzer"):
            name = _text_column(columns, given)
            return [name], [lambda batch: gather(batch, [name], "string", None)]
        if hasattr(self.model, "n_features_in_"):
            found = match_features(None, columns, given)
            _check_number(found, self.model.n_features_in_, columns)
            return found, [partial(self._matrix, columns=found)]
        found = match_features(None, columns, given) if "features" in given else list(columns)
        matrix = [name for name in found if "features" in given or is_number(columns[name])]
        return found, [partial(self._matrix, columns=matrix), partial(self._frame, names=found, columns=found)]

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
        if len(self.forms) > 1:
            self.forms = [self._accepted(batch)]
        return self._predict(self.forms[0](batch))

    def _predict(self, values: Any) -> Any:
        if self.order is not None:
            return self.np.asarray(self.model.predict_proba(values))[:, self.order]
        return self.np.asarray(self.model.predict(values))

    def _accepted(self, batch: dict[str, Any]) -> Form:
        """The first form that the estimator accepts.

        :raises ValueError: it accepts none.
        """
        problems = []
        for form in self.forms:
            try:
                self._predict(form(batch))
            except Exception as error:  # noqa: BLE001 -- a transformer of the trainer may raise any
                problems.append(f"{type(error).__name__}: {str(error)[:80]}")
            else:
                return form
        raise MatchError(
            "the estimator does not record on which columns it was trained. It accepts neither a matrix of numbers"
            f" ({problems[0]}) nor a data frame of {listed(self.columns)} ({problems[1]})",
            'list its columns in order: serving_signature={"columns": {"features": ["…", "…"]}}; or give a scorer',
        )

    def _matrix(self, batch: dict[str, Any], columns: list[str]) -> Any:
        """The columns as a matrix. With text among them it is one of objects, as of a data frame."""
        if self.text & set(columns):
            return self._frame(batch, columns, columns).to_numpy(object)
        values = gather(batch, columns, "float64", None, 1.0)
        return values.reshape(len(values), -1)

    def _frame(self, batch: dict[str, Any], names: list[str], columns: list[str]) -> Any:
        """The batch as a data frame, as if pandas had read it from a file.

        Text has pandas' type for text, even in a batch that has only missing values. A model of LightGBM or XGBoost
        gets the categories with which it was trained.
        """
        import pandas as pd  # type: ignore[import-untyped,unused-ignore]

        text = pd.Series(["text"]).dtype  # object before pandas 3
        series = {name: pd.Series(batch[name], dtype=text if name in self.text else None) for name in columns}
        frame = pd.DataFrame({name: series[column] for name, column in zip(names, columns)})
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


def _first(model: Any) -> Any:
    """The first step of a pipeline, whose input is that of the whole."""
    if hasattr(model, "best_estimator_"):
        return _first(model.best_estimator_)
    if hasattr(model, "calibrated_classifiers_"):
        return _first(model.calibrated_classifiers_[0].estimator)
    steps = getattr(model, "steps", None) or getattr(model, "transformer_list", None)
    return _first(steps[0][1]) if steps else model


def _text_column(columns: dict[str, Any], given: dict[str, Any]) -> str:
    """The column that a vectorizer of texts takes.

    :raises MatchError: it is not known, or is not a column of strings.
    """
    texts = [name for name, (dtype, _) in columns.items() if dtype == "string"]
    found = match_features(None, columns, given) if "features" in given else texts
    if len(found) != 1 or found[0] not in texts:
        raise MatchError(
            f"the estimator takes one column of texts; the dataset has {listed(texts) or 'none'}",
            'name the column: serving_signature={"columns": {"features": "…"}}',
        )
    return found[0]


def _check_number(found: list[str], number: int, columns: dict[str, Any]) -> None:
    """Check the number of columns.

    :raises MatchError: the estimator was trained on another number of columns.
    """
    if len(found) != number and not any(columns[name][1] for name in found):
        raise MatchError(
            f"the estimator was trained on {number} column{'s' * (number != 1)} without names; the dataset has"
            f" {len(found)}: {listed(found)}",
            'list its columns in order: serving_signature={"columns": {"features": ["…", "…"]}}; or train it on a data'
            " frame",
        )


def _categories(model: Any) -> dict[str, Callable[[Any], Any]]:
    """By feature, a function that converts its values to categories, for models of LightGBM and XGBoost."""
    framework = _framework(model)
    if framework == "lightgbm":
        from . import lightgbm

        found = lightgbm.categories_of(model.booster_)
        return {name: partial(lightgbm.with_categories, known=known, name=name) for name, known in found.items()}
    if framework == "xgboost":
        from . import xgboost

        found = xgboost.categories_of(model.get_booster())
        return {name: partial(xgboost.with_categories, known=known, name=name) for name, known in found.items()}
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
