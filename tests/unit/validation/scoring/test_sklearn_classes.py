"""The classes of a scikit-learn classifier, in the order of the dataset's classes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlengine.validation.scoring.predictors.sklearn import SklearnModel


def order(estimator: list[Any], dataset: list[Any]) -> Any:
    model = SklearnModel.__new__(SklearnModel)
    model.model = SimpleNamespace(classes_=np.array(estimator), predict_proba=lambda _: None)
    model.classes = dataset
    return model._class_order()


@pytest.mark.parametrize(
    ("estimator", "dataset", "expected"),
    [
        ([0.0, 1.0], [0, 1], [0, 1]),
        ([0, 1], [0.0, 1.0], [0, 1]),
        ([0, 1], [False, True], [0, 1]),
        ([False, True], [1, 0], [1, 0]),
        ([1, 2, 10], ["10", "2", "1"], [2, 1, 0]),
        (["no", "yes"], ["yes", "no"], [1, 0]),
    ],
)
def test_equal_classes_match_whatever_their_type(estimator: list[Any], dataset: list[Any], expected: list[int]) -> None:
    assert order(estimator, dataset) == expected


@pytest.mark.parametrize(
    ("estimator", "dataset"),
    [(["a", "b"], ["a", "c"]), ([0, 1], [0, 1, 2]), ([0, 1, 2], [0, 1]), ([0, 1], ["no", "yes"])],
)
def test_other_classes_are_refused_with_advice(estimator: list[Any], dataset: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"the estimator has the classes .*; the dataset has .* or give a scorer"):
        order(estimator, dataset)
