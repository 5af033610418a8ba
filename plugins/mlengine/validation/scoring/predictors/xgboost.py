"""The predictor for an XGBoost model: ``model.json`` or ``model.ubj``.

Features are columns by name, or if they have no names, all numeric columns in schema order. Since XGBoost 3.1, a model
that was trained with categories of a data frame contains them, and it gets a data frame with these categories. Before
3.1, a model contains only codes, and which values they stand for is unknown.
"""

from __future__ import annotations

from typing import Any

from ..arrays import check_categories, gather
from ..matching import listed, match_features


class XGBoostModel:
    batch_size = None

    def __init__(self, path: str, options: dict[str, Any], columns: dict[str, Any]) -> None:
        import numpy as np
        import xgboost  # type: ignore[import-not-found,unused-ignore]

        self.np, self.xgboost = np, xgboost
        self.booster = xgboost.Booster()
        self.booster.load_model(path)
        self.booster.set_param({"device": "cpu"})
        names = self.booster.feature_names
        self.columns = match_features(names, columns, options["columns"])
        self.names, self.types = names, self.booster.feature_types
        self.categories = categories_of(self.booster)

    def predict(self, batch: dict[str, Any]) -> Any:
        if self.categories:
            frame = self._frame(batch)
            return self.booster.predict(self.xgboost.DMatrix(frame, enable_categorical=True))
        values = gather({name: _numeric(batch, name) for name in self.columns}, self.columns, "float32", None, 1.0)
        values = values.reshape(len(values), -1)
        matrix = self.xgboost.DMatrix(
            values, feature_names=self.names, feature_types=self.types, missing=self.np.nan,
            enable_categorical=bool(self.types and "c" in self.types),
        )  # fmt: skip
        return self.booster.predict(matrix)

    def _frame(self, batch: dict[str, Any]) -> Any:
        import pandas as pd  # type: ignore[import-untyped,unused-ignore]

        data = {}
        for name, column in zip(self.names, self.columns):
            known = self.categories.get(name)
            data[name] = _numeric(batch, column) if known is None else with_categories(batch[column], known, name)
        return pd.DataFrame(data)


def with_categories(values: Any, known: list[Any], name: str) -> Any:
    """The values as categories of pandas. XGBoost determines their codes, and scores or refuses unknown ones."""
    import pandas as pd

    check_categories(values, known, name)
    found = pd.unique(pd.Series(values).dropna())
    return pd.Categorical(values, list(dict.fromkeys([*known, *found])))


def categories_of(booster: Any) -> dict[str, list[Any]]:
    """The categories by feature; empty if the model was trained with numbers, or with codes of categories.

    :raises ValueError: the model has categories, and XGBoost is older than 3.1, or pyarrow is missing.
    """
    if not hasattr(booster, "get_categories"):
        types = booster.feature_types or []
        names = booster.feature_names or [f"f{number}" for number in range(len(types))]
        if found := [name for name, kind in zip(names, types) if kind == "c"]:
            raise ValueError(
                f"the model has categories ({listed(found)}), and XGBoost before 3.1 does not store their values in a"
                " model: train with XGBoost 3.1 or newer, or give a scorer that encodes them"
            )
        return {}
    if booster.get_categories().empty():
        return {}
    try:
        found = booster.get_categories(export_to_arrow=True).to_arrow()
    except ImportError as error:
        raise ValueError(
            "the model has categories, which XGBoost reads with pyarrow: add pyarrow to the trainer's dependencies, or"
            " give a scorer"
        ) from error
    return {name: values.to_pylist() for name, values in found if values is not None}


def _numeric(batch: dict[str, Any], name: str) -> Any:
    values = batch[name]
    if values.dtype == object:
        raise ValueError(
            f"feature {name} is text; XGBoost takes numbers: encode it in the dataset, or give a scorer that does"
        )
    return values


def load(path: str, options: dict[str, Any], columns: dict[str, Any]) -> XGBoostModel:
    return XGBoostModel(path, options, columns)
