"""Checks of a model's outputs against the task."""

from __future__ import annotations

import numpy as np
import pytest

from mlengine.core.errors import ModelError
from mlengine.validation.outputs import Activation, fit

CLASSES = ("cat", "dog", "eel")


def test_a_binary_model_gives_one_probability_or_two() -> None:
    one = fit(np.array([[0.2], [0.9]]), "binary", ("no", "yes"))
    two = fit(np.array([[0.8, 0.2], [0.1, 0.9]]), "binary", ("no", "yes"))
    assert one.values is not None
    assert two.values is not None
    assert one.values.tolist() == two.values.tolist() == [0.2, 0.9]


def test_logits_become_probabilities() -> None:
    fitted = fit(np.array([[-1000.0], [0.0], [1000.0]]), "binary", ("no", "yes"), Activation.SIGMOID)
    assert fitted.values is not None
    assert fitted.values.tolist() == [0.0, 0.5, 1.0]
    fitted = fit(np.array([[1000.0, 0.0, 0.0]]), "multiclass", CLASSES, Activation.SOFTMAX)
    assert fitted.values is not None
    assert fitted.values.tolist() == [[1.0, 0.0, 0.0]]


def test_scores_give_classes_and_no_probabilities() -> None:
    fitted = fit(np.array([[5.0, -1, 0], [0, 1, 2]]), "multiclass", CLASSES, Activation.SCORES)
    assert fitted.values is None
    assert fitted.classes is not None
    assert fitted.classes.tolist() == [0, 2]


def test_rows_that_are_not_finite_have_no_prediction() -> None:
    fitted = fit(np.array([[0.2, 0.3, 0.5], [np.nan, 0, 1], [np.inf, 0, 0]]), "multiclass", CLASSES)
    assert fitted.not_finite == 2
    assert fitted.classes is not None
    assert fitted.classes.tolist() == [2, -1, -1]
    assert fitted.values is not None
    assert np.isnan(fitted.values[1:]).all()


def test_a_regression_gives_one_number() -> None:
    fitted = fit(np.array([[250_000.0], [np.inf]]), "regression", ())
    assert fitted.values is not None
    assert fitted.values[0] == 250_000
    assert fitted.not_finite == 1


@pytest.mark.parametrize(
    ("outputs", "task", "classes", "message"),
    [
        ([[3.2]], "binary", ("no", "yes"), "not probabilities: they go from 3.2 to 3.2"),
        ([[0.4, 0.4]], "binary", ("no", "yes"), "sum of a row differs from 1 by 0.2"),
        ([[0.1, 0.2, 0.7]], "binary", ("no", "yes"), r"3 numbers a row, and the task is binary \(classes no, yes\)"),
        ([[0.4]], "multiclass", CLASSES, "1 number a row, and the dataset has 3 classes .* is unknown"),
        ([[0.4, 0.6]], "multiclass", CLASSES, r"2 numbers a row, and the dataset has 3 classes \(cat, dog, eel\)"),
        ([[4.0, 1.0, 2.0]], "multiclass", CLASSES, "not probabilities: they go from 1 to 4"),
        ([[1.0, 2.0]], "regression", (), "2 numbers a row, and a regression needs one number"),
    ],
)
def test_outputs_that_do_not_fit_the_task_are_refused(
    outputs: list[list[float]], task: str, classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        fit(np.array(outputs), task, classes)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("task", "classes", "activation", "message"),
    [
        ("binary", ("no", "yes"), Activation.SOFTMAX, "softmax, and the model gives one number a row"),
        ("regression", (), Activation.SIGMOID, "the activation is sigmoid, and a regression has none"),
        ("regression", (), Activation.SCORES, "the activation is scores, and a regression has none"),
    ],
)
def test_an_activation_that_does_not_fit_is_refused(
    task: str, classes: tuple[str, ...], activation: Activation, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        fit(np.array([[-3.0], [2.0], [0.1]]), task, classes, activation)
    assert raised.value.hint
