"""A LightGBM model file. Features are columns by name, else (``Column_0`` …) all numbers in schema order."""

from __future__ import annotations

import re
from typing import Any

from ..arrays import gather
from ..matching import match


class LightGBMModel:
    batch_size = None

    def __init__(self, path: str, options: dict[str, Any], columns: dict[str, Any]) -> None:
        import lightgbm  # type: ignore[import-not-found,unused-ignore]
        import numpy as np

        self.np = np
        self.booster = lightgbm.Booster(model_file=path)
        names = self.booster.feature_name()
        if all(re.fullmatch(r"Column_\d+", name) for name in names) and not set(names) <= set(columns):
            self.columns = match(["features"], columns, features="features")["features"]
        else:
            # LightGBM writes names with _ for what its file format does not hold.
            safe = {re.sub(r"[^A-Za-z0-9_.-]", "_", column): column for column in columns}
            given = {
                **{name: safe[name] for name in names if name not in columns and name in safe},
                **options["columns"],
            }
            feeds = match(names, columns, given=given)
            self.columns = [feeds[name][0] for name in names]

    def predict(self, batch: dict[str, Any]) -> Any:
        values = gather(batch, self.columns, "float64", None, 1.0)
        return self.booster.predict(values.reshape(len(values), -1))


def load(path: str, options: dict[str, Any], columns: dict[str, Any]) -> LightGBMModel:
    return LightGBMModel(path, options, columns)
