"""Exports models of frameworks other than TensorFlow: ``any_models_frameworks.py TRAIN_NPZ OUT_DIR``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import lightgbm  # type: ignore[import-not-found]
import numpy as np
import pandas as pd
import xgboost  # type: ignore[import-not-found]
from skl2onnx import to_onnx  # type: ignore[import-not-found]
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder


def main(data: Path, out: Path) -> None:
    train: dict[str, Any] = dict(np.load(data, allow_pickle=True))

    def folder(name: str) -> Path:
        (out / name).mkdir()
        return out / name

    numbers = np.stack([train["tenure"], train["charges"]], 1)
    pixels = train["image"].reshape(len(train["image"]), -1).astype(np.float32)
    logistic = LogisticRegression(max_iter=1000).fit(numbers, train["churned"])
    plain = to_onnx(logistic, numbers[:1], options={"zipmap": False})
    (folder("onnx_plain") / "model.onnx").write_bytes(plain.SerializeToString())
    linear = to_onnx(LinearRegression().fit(train["charges"][:, None], train["price"]), train["charges"][:1, None])
    (folder("onnx_price") / "model.onnx").write_bytes(linear.SerializeToString())
    many = {"objective": "multi:softprob", "num_class": 3, "max_depth": 2}
    xgboost.train(many, xgboost.DMatrix(pixels, train["label"]), 20).save_model(folder("xgboost_classes") / "model.ubj")
    price = xgboost.DMatrix(train["charges"][:, None], train["price"], feature_names=["charges"])
    xgboost.train({"max_depth": 8}, price, 60).save_model(folder("xgboost_price") / "model.json")
    lightgbm.train(
        {"objective": "multiclass", "num_class": 3, "verbose": -1}, lightgbm.Dataset(pixels, train["label"]), 20
    ).save_model(folder("lightgbm_classes") / "model.txt")
    columns = make_column_transformer((CountVectorizer(), "message"), ("passthrough", ["calls"]))
    text = make_pipeline(columns, LogisticRegression(max_iter=1000))
    text.fit(pd.DataFrame({name: train[name] for name in ("message", "calls")}), train["spam"])
    joblib.dump(text, folder("sklearn_text") / "model.joblib")
    is_open = (train["open"] == "yes").astype(int)
    shops = pd.DataFrame({"shop": pd.Categorical(train["shop"]), "town": pd.Categorical(train["town"])})
    rows = lightgbm.Dataset(shops, is_open)
    settings = {"objective": "binary", "min_data_per_group": 1, "verbose": -1}
    lightgbm.train(settings, rows, 50).save_model(folder("lightgbm_categories") / "model.txt")
    matrix = xgboost.DMatrix(shops, is_open, enable_categorical=True)
    xgboost.train({"objective": "binary:logistic"}, matrix, 50).save_model(folder("xgboost_categories") / "model.ubj")
    classifier = lightgbm.LGBMClassifier(n_estimators=50, min_data_per_group=1, verbose=-1)
    joblib.dump(classifier.fit(shops, train["open"]), folder("sklearn_lightgbm") / "model.joblib")
    search = GridSearchCV(xgboost.XGBClassifier(n_estimators=50, enable_categorical=True), {"max_depth": [2]}, cv=2)
    joblib.dump(search.fit(shops, is_open), folder("sklearn_xgboost") / "model.joblib")
    towns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["town"]))
    missing = make_pipeline(towns, LogisticRegression(C=100))
    missing.fit(pd.DataFrame({"town": pd.Series(list(train["town"]), dtype="str")}), train["open"])
    joblib.dump(missing, folder("sklearn_missing") / "model.joblib")
    reversed_columns = to_onnx(
        LogisticRegression(max_iter=1000).fit(numbers[:, ::-1], train["churned"]),
        numbers[:1],
        options={"zipmap": False},
    )
    (folder("onnx_reversed") / "model.onnx").write_bytes(reversed_columns.SerializeToString())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
