"""The columns that a scikit-learn estimator without names of features gets, and their form."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mlengine.validation.scoring.matching import MatchError
from mlengine.validation.scoring.predictors.sklearn import SklearnModel

ROWS = 60
DESCRIBED = {"b": ("float64", ()), "a": ("float64", ()), "text": ("string", ()), "town": ("string", ())}
TARGET = np.arange(ROWS) % 2


def data() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "b": random.random(ROWS),
        "a": random.random(ROWS) + TARGET,
        "text": np.array([f"win {row}" if row % 2 else f"lunch {row}" for row in range(ROWS)], object),
        "town": np.array([["Bern", None, "Chur"][row % 3] for row in range(ROWS)], object),
    }


class Ratio(BaseEstimator, TransformerMixin):  # type: ignore[misc, unused-ignore]
    """A transformer of a data frame that records neither names nor the number of columns, as many own ones."""

    def fit(self, frame: pd.DataFrame, target: Any = None) -> Ratio:
        return self

    def transform(self, frame: pd.DataFrame) -> Any:
        return frame.assign(ratio=frame["a"] / (1 + frame["b"]))[["a", "ratio"]]


class FirstColumn(Ratio):
    """The same for a matrix."""

    def transform(self, matrix: Any) -> Any:
        return matrix[:, :1]


def loaded(folder: Path, model: Any, columns: tuple[str, ...], features: Any = None) -> SklearnModel:
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    options = {"columns": {} if features is None else {"features": features}, "classes": [0, 1]}
    return SklearnModel(str(folder / "model.pkl"), options, {name: DESCRIBED[name] for name in columns})


def same(predictor: SklearnModel, model: Any, trained_on: Any) -> bool:
    batch = {name: data()[name] for name in predictor.columns}
    return np.allclose(predictor.predict(batch), model.predict_proba(trained_on))


@pytest.mark.parametrize(
    ("columns", "features"), [(("text",), None), (("b", "text"), None), (("b", "town", "text"), "text")]
)
def test_a_vectorizer_gets_a_column_of_texts(tmp_path: Path, columns: tuple[str, ...], features: Any) -> None:
    texts = pd.Series(data()["text"])
    model = GridSearchCV(make_pipeline(TfidfVectorizer(), LogisticRegression()), {}, cv=2).fit(texts, TARGET)
    predictor = loaded(tmp_path, model, columns, features)
    assert predictor.columns == ["text"]
    assert same(predictor, model, texts)
    predictor.predict({"text": np.array([None, "win"], object)})  # a missing text is an empty one


def test_a_vectorizer_needs_the_name_of_its_column(tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(data()["text"], TARGET)
    with pytest.raises(MatchError, match="takes one column of texts; the dataset has text, town") as error:
        loaded(tmp_path, model, ("b", "town", "text")[::-1])
    assert '{"columns": {"features": "…"}}' in error.value.hint


def test_a_transformer_that_records_no_columns_gets_a_data_frame_if_it_takes_no_matrix(tmp_path: Path) -> None:
    frame = pd.DataFrame({name: data()[name] for name in ("a", "b")})
    model = make_pipeline(Ratio(), StandardScaler(), LogisticRegression()).fit(frame, TARGET)
    assert same(loaded(tmp_path, model, ("b", "a", "text")), model, frame)
    matrix = frame.to_numpy()
    model = make_pipeline(FirstColumn(), LogisticRegression()).fit(matrix, TARGET)
    assert same(loaded(tmp_path, model, ("b", "a", "text"), ["a", "b"]), model, matrix)


class Named(Ratio):
    """A transformer that records the names of the columns, and does not depend on a data frame."""

    def fit(self, frame: pd.DataFrame, target: Any = None) -> Named:
        self.feature_names_in_ = np.array(frame.columns)
        return self

    def transform(self, frame: pd.DataFrame) -> Any:
        return np.asarray(frame)


def test_a_transformer_can_record_the_names_of_its_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame({name: data()[name] for name in ("a", "b")})
    model = make_pipeline(Named(), LogisticRegression()).fit(frame, TARGET)
    assert same(loaded(tmp_path, model, ("b", "a", "text")), model, frame)


def test_a_transformer_that_accepts_neither_is_refused_with_both_reasons(tmp_path: Path) -> None:
    frame = pd.DataFrame({name: data()[name] for name in ("a", "b")})
    model = make_pipeline(Ratio(), LogisticRegression()).fit(frame, TARGET)
    with pytest.raises(MatchError, match=r"neither a matrix .* nor a data frame of b, text \(KeyError: 'a'\)") as error:
        loaded(tmp_path, model, ("b", "text")).predict({name: data()[name] for name in ("b", "text")})
    assert "list its columns in order" in error.value.hint


def test_text_is_in_a_matrix_of_objects(tmp_path: Path) -> None:
    matrix = pd.DataFrame({"town": pd.Series(list(data()["town"]), dtype="str")}).to_numpy(object)
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(matrix, TARGET)
    assert same(loaded(tmp_path, model, ("town",)), model, matrix)
    assert same(loaded(tmp_path, model, ("a", "town"), ["town"]), model, matrix)


def test_another_number_of_columns_is_refused_with_advice(tmp_path: Path) -> None:
    model = LogisticRegression().fit(data()["a"][:, None], TARGET)
    with pytest.raises(MatchError, match="trained on 1 column without names; the dataset has 2: b, a") as error:
        loaded(tmp_path, model, ("b", "a", "text"))
    assert "list its columns in order" in error.value.hint
    assert same(loaded(tmp_path, model, ("b", "a", "text"), ["a"]), model, data()["a"][:, None])
