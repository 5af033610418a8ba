"""An XGBoost model: ``model.json`` or ``model.ubj``. Features are columns by name, else all numbers in schema order."""

from __future__ import annotations

from typing import Any

from ..arrays import gather
from ..matching import match


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
        if names:
            feeds = match(names, columns, given=options["columns"])
            self.columns = [feeds[name][0] for name in names]
        else:
            self.columns = match(["features"], columns, features="features")["features"]
        self.names, self.types = names, self.booster.feature_types

    def predict(self, batch: dict[str, Any]) -> Any:
        values = gather({name: _numeric(batch, name) for name in self.columns}, self.columns, "float32", None, 1.0)
        values = values.reshape(len(values), -1)
        matrix = self.xgboost.DMatrix(
            values, feature_names=self.names, feature_types=self.types, missing=self.np.nan,
            enable_categorical=bool(self.types and "c" in self.types),
        )  # fmt: skip
        return self.booster.predict(matrix)


def _numeric(batch: dict[str, Any], name: str) -> Any:
    values = batch[name]
    if values.dtype == object:
        raise ValueError(
            f"feature {name} is text; XGBoost takes numbers: encode it in the dataset, or give a scorer that does"
        )
    return values


def load(path: str, options: dict[str, Any], columns: dict[str, Any]) -> XGBoostModel:
    return XGBoostModel(path, options, columns)
