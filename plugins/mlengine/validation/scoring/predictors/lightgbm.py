"""The predictor for a LightGBM model file.

Features are columns by name, or if they have no names (``Column_0`` …), all numeric columns in schema order. If a model
was trained with categories of pandas, its file contains them, and it gets a data frame with these categories.
"""

from __future__ import annotations

import re
from typing import Any

from ..arrays import check_categories, gather
from ..matching import match_features


class LightGBMModel:
    batch_size = None

    def __init__(self, path: str, options: dict[str, Any], columns: dict[str, Any]) -> None:
        import lightgbm  # type: ignore[import-not-found,unused-ignore]
        import numpy as np

        self.np = np
        self.booster = lightgbm.Booster(model_file=path)
        names = self.booster.feature_name()
        if all(re.fullmatch(r"Column_\d+", name) for name in names) and not set(names) <= set(columns):
            self.columns = match_features(None, columns, options["columns"])
        else:
            # LightGBM writes _ for characters in names that its file format cannot represent.
            safe = {re.sub(r"[^A-Za-z0-9_.-]", "_", column): column for column in columns}
            given = {
                **{name: safe[name] for name in names if name not in columns and name in safe},
                **options["columns"],
            }
            self.columns = match_features(names, columns, given)
        self.categories = categories_of(self.booster)

    def predict(self, batch: dict[str, Any]) -> Any:
        if self.categories:
            return self.booster.predict(self._frame(batch))
        text = [name for name in self.columns if batch[name].dtype == object]
        if text:
            raise ValueError(
                f"feature {text[0]} is text; LightGBM takes numbers: train with a category column of pandas, encode it"
                " in the dataset, or give a scorer that does"
            )
        values = gather(batch, self.columns, "float64", None, 1.0)
        return self.booster.predict(values.reshape(len(values), -1))

    def _frame(self, batch: dict[str, Any]) -> Any:
        import pandas as pd  # type: ignore[import-untyped,unused-ignore]

        data = {name: batch[column] for name, column in zip(self.booster.feature_name(), self.columns)}
        for name, categories in self.categories.items():
            data[name] = with_categories(data[name], categories, name)
        return pd.DataFrame(data)


def with_categories(values: Any, known: list[Any], name: str) -> Any:
    """The values as categories of pandas. LightGBM treats an unknown category as missing."""
    import pandas as pd

    check_categories(values, known, name)
    codes = pd.Index(known).get_indexer(values)  # -1 for a value that is missing or not known
    return pd.Categorical.from_codes(codes, known)


def categories_of(booster: Any) -> dict[str, list[Any]]:
    """The categories by feature. The model's file lists them without names, in the order of the features."""
    listed = booster.pandas_categorical
    if not listed:
        return {}
    text = booster.model_to_string(num_iteration=1)
    ranges = dict(zip(booster.feature_name(), re.findall(r"^feature_infos=(.*)$", text, re.MULTILINE)[0].split(" ")))
    others = [name for name, values in ranges.items() if not values.startswith("[")]
    used = [name for name in others if ranges[name] != "none"]
    found = next((names for names in (used, others) if len(names) == len(listed)), None)
    if found is None:  # a feature with one value has no range, whatever its type
        raise ValueError(
            f"the model has {len(listed)} category columns of pandas, and its file does not say which of"
            f" {', '.join(others)} they are: leave out features with a single value, or give a scorer"
        )
    return dict(zip(found, listed))


def load(path: str, options: dict[str, Any], columns: dict[str, Any]) -> LightGBMModel:
    return LightGBMModel(path, options, columns)
