"""The conversion of columns to the arrays of an input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlengine.validation.scoring.arrays import check_categories, gather
from mlengine.validation.scoring.predictors import lightgbm, xgboost


def test_several_columns_become_a_matrix_in_their_order() -> None:
    batch = {"a": np.array([1, 2]), "b": np.array([0.5, 1.5])}
    assert gather(batch, ["b", "a"], "float32", (2,)).tolist() == [[0.5, 1.0], [1.5, 2.0]]


def test_a_column_of_scalars_fits_an_input_of_one_value() -> None:
    assert gather({"a": np.array([1, 2])}, ["a"], "int64", (1,)).shape == (2, 1)
    assert gather({"a": np.array([1, 2])}, ["a"], "int64", ()).shape == (2,)


def test_images_of_bytes_are_scaled_for_inputs_of_floats_and_columns_of_bytes_are_not() -> None:
    images = {"image": np.full((2, 2, 2), 255, np.uint8)}
    assert gather(images, ["image"], "float32", (4,)).max() == 1.0
    assert gather({"age": np.array([51], np.uint8)}, ["age"], "float32", ()).tolist() == [51.0]
    assert gather(images, ["image"], "uint8", (2, 2)).max() == 255
    assert gather(images, ["image"], "float32", (4,), 51.0).max() == 5.0


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_a_matrix_of_numbers_is_not_treated_as_an_image(kind: Any) -> None:
    batch = {"age": np.array([20, 40], kind), "n": np.array([1, 2], kind)}
    assert gather(batch, ["age", "n"], "float32", (2,)).tolist() == [[20.0, 1.0], [40.0, 2.0]]
    assert gather(batch, ["age", "n"], "float32", (2,), 2.0).tolist() == [[10.0, 0.5], [20.0, 1.0]]


def test_integers_are_not_truncated() -> None:
    with pytest.raises(ValueError, match="of type uint8 does not hold the values of age: int64, 3 to 300"):
        gather({"age": np.array([3, 300])}, ["age"], "uint8", ())


def test_missing_values_do_not_fit_integers() -> None:
    with pytest.raises(ValueError, match="does not hold the values of age"):
        gather({"age": np.array([3, np.nan])}, ["age"], "int64", ())


def test_text_does_not_fit_numbers_and_missing_text_is_empty() -> None:
    plans = {"plan": np.array(["pro", None], object)}
    with pytest.raises(ValueError, match="plan is text"):
        gather(plans, ["plan"], "float32", ())
    assert gather(plans, ["plan"], "string", ()).tolist() == ["pro", ""]
    with pytest.raises(ValueError, match="zip has int64 values, and the model's input takes text"):
        gather({"zip": np.array([8001])}, ["zip"], "string", ())


def test_a_shape_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"takes values of shape \[5\], and those of image have \[2, 2\]"):
        gather({"image": np.zeros((3, 2, 2))}, ["image"], "float32", (5,))


def test_a_column_that_does_not_fit_a_matrix_is_named() -> None:
    batch = {"age": np.array([1, 2]), "plan": np.array(["a", "b"], object), "image": np.zeros((2, 3, 3))}
    with pytest.raises(ValueError, match="plan is text, and the model's input takes float32"):
        gather(batch, ["age", "plan"], "float32", (2,))
    with pytest.raises(ValueError, match="image has tensors, which are no column of a matrix"):
        gather(batch, ["age", "image"], "float32", (2,))


def test_the_columns_of_a_matrix_that_does_not_fit_are_named() -> None:
    batch = {name: np.array([1.0, 2.0]) for name in ("a", "b", "c")}
    with pytest.raises(ValueError, match=r"values of shape \[2\], and those of the columns a, b, c have \[3\]"):
        gather(batch, ["a", "b", "c"], "float32", (2,))


TEXT = np.array(["20", None], object)


@pytest.mark.parametrize("module", [lightgbm, xgboost])
@pytest.mark.parametrize(
    ("values", "known", "message"),
    [
        (
            np.array([20, 30]),
            ["20", "30", "40", "50"],
            r"shop has numbers, .* are strings \('20', '30', '40'\): train on",
        ),
        (np.array([20.0, np.nan]), ["20"], "shop has numbers"),
        (np.array([True]), ["True"], "shop has numbers"),
        (TEXT, [20, 30], r"shop has strings, .* are numbers \(20, 30\)"),
        (pd.Series(TEXT, dtype="str"), [20, 30], "shop has strings"),
    ],
)
def test_categories_of_another_kind_are_refused(module: Any, values: Any, known: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module.with_categories(values, known, "shop")


@pytest.mark.parametrize(
    ("values", "known"),
    [
        (np.array([20.0, np.nan]), [20, 30]),
        (np.array([True, False]), [False, True]),
        (TEXT, ["20"]),
        (pd.Series(TEXT, dtype="str"), ["30"]),
        (np.array(["2026-01-01"], "datetime64[us]"), ["2026-01-01"]),
        (TEXT, []),
        (np.array([1]), ["1", 2]),
    ],
)
def test_categories_of_the_same_or_an_unknown_kind_are_accepted(values: Any, known: list[Any]) -> None:
    check_categories(values, known, "shop")
