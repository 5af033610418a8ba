"""Checks that the outputs of a model are numbers from which the metrics of the task can be computed.

========== ==============================================================================================
task       outputs of a row
========== ==============================================================================================
binary     the probability of the second class, or one of each class, which sum to 1
multiclass as many as there are classes: probabilities, which sum to 1, or scores (``activation="scores"``)
regression one finite number
none       any numbers: the outputs are kept, and no metric is computed
========== ==============================================================================================

Outputs of another shape are refused, and so are outputs that are not probabilities if probabilities are needed: of one
column, column 0 is always the largest, and an accuracy computed from it would be meaningless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from mlengine.core.errors import ModelError
from mlengine.core.plural import first_of

if TYPE_CHECKING:
    import numpy as np

    Matrix = np.ndarray[Any, np.dtype[np.float64]]

SUM_TOLERANCE = 1e-3


class Activation(StrEnum):
    """The function that is applied to a model's outputs before they are used."""

    NONE = "none"  # the outputs are probabilities, or a regression's values
    SIGMOID = "sigmoid"  # the outputs are logits of a binary model
    SOFTMAX = "softmax"  # the outputs are logits, one for each class
    SCORES = "scores"  # only the order of the outputs matters: the class with the highest is the prediction


@dataclass(frozen=True)
class Fitted:
    """Predictions in the form that their task requires. In rows with an output that is not finite, all values are NaN.

    :param values: binary (rows,): the probability of the second class; multiclass (rows, classes): probabilities;
        regression (rows,): values; none (rows, outputs). ``None`` if only classes are known.
    :param classes: multiclass (rows,): the index of the class with the highest output; -1 where it is not finite.
    :param not_finite: the number of rows with an output that is NaN or infinite.
    """

    values: Matrix | None
    classes: np.ndarray[Any, np.dtype[np.int64]] | None
    not_finite: int


def fit(outputs: Matrix, task: str, classes: Sequence[Any], activation: Activation = Activation.NONE) -> Fitted:
    """Convert ``outputs`` (rows, values) to predictions.

    :raises ModelError: the task needs other outputs; the error says what was found and what to change.
    """
    import numpy as np

    finite: np.ndarray[Any, Any] = np.asarray(np.isfinite(outputs).all(axis=1))
    not_finite = int(len(outputs) - finite.sum())
    outputs = np.where(finite[:, None], outputs, np.nan) if not_finite else outputs
    if task == "none":
        return Fitted(outputs, None, not_finite)
    if task == "regression":
        if activation is not Activation.NONE:
            raise ModelError(
                f"the activation is {activation.value}, and a regression has none",
                hint="remove the activation from serving_signature, or register the dataset with another --task",
            )
        return Fitted(_single(outputs, "a regression needs one number"), None, not_finite)
    if task == "binary":
        return Fitted(_binary(outputs, classes, activation), None, not_finite)
    values = _multiclass(outputs, classes, activation)
    order = np.where(np.isnan(outputs[:, :1]), -1.0, outputs).argmax(axis=1)
    predicted = np.where(finite, order, -1).astype(np.int64)
    return Fitted(None if activation is Activation.SCORES else values, predicted, not_finite)


def _single(outputs: Matrix, need: str) -> Matrix:
    if outputs.shape[1] != 1:
        raise ModelError(
            f"the model gives {outputs.shape[1]} numbers a row, and {need}",
            hint="export a model with one output of one number, name it in serving_signature={'output': …}, or register"
            " the dataset with another --task",
        )
    return outputs[:, 0]


def _binary(outputs: Matrix, classes: Sequence[Any], activation: Activation) -> Matrix:
    if outputs.shape[1] not in {1, 2}:
        raise ModelError(
            f"the model gives {outputs.shape[1]} numbers a row, and the task is binary (classes {first_of(classes)})",
            hint="export the probability of the second class, or those of both classes",
        )
    if activation is Activation.SOFTMAX and outputs.shape[1] == 1:
        raise ModelError(
            "the activation is softmax, and the model gives one number a row: each probability would be 1",
            hint="set serving_signature={'activation': 'sigmoid'}, or export a number for each of the two classes",
        )
    values = _activated(outputs, activation)
    _check_probabilities(values, activation)
    return values[:, -1]


def _multiclass(outputs: Matrix, classes: Sequence[Any], activation: Activation) -> Matrix:
    columns = outputs.shape[1]
    if columns != len(classes):
        more = "; whether one number is a probability, a value or a class number is unknown" if columns == 1 else ""
        raise ModelError(
            f"the model gives {columns} number{'s' * (columns != 1)} a row, and the dataset has {len(classes)} classes"
            f" ({first_of(classes)}){more}",
            hint=f"export {len(classes)} probabilities a row, in the order of the classes; for a model of two classes,"
            " register the dataset with --task binary",
        )
    if activation is Activation.SCORES:
        return outputs
    values = _activated(outputs, activation)
    _check_probabilities(values, activation)
    return values


def _activated(outputs: Matrix, activation: Activation) -> Matrix:
    import numpy as np

    if activation is Activation.SIGMOID:
        return np.where(outputs >= 0, 1 / (1 + np.exp(-np.abs(outputs))), 1 - 1 / (1 + np.exp(-np.abs(outputs))))
    if activation is Activation.SOFTMAX:
        shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]
    return outputs


def _check_probabilities(values: Matrix, activation: Activation) -> None:
    """Check that the outputs are probabilities.

    :raises ModelError: a number is not between 0 and 1, or a row of several numbers does not sum to 1.
    """
    import numpy as np

    known = values[~np.isnan(values[:, 0])]
    if not len(known):
        return
    low, high, columns = float(known.min()), float(known.max()), values.shape[1]
    logits = (
        f"if they are logits, set serving_signature={{'activation': '{'softmax' if columns > 1 else 'sigmoid'}'}}"
        if activation is Activation.NONE
        else "remove the activation"
    )
    scores = ", or 'scores' to compare classes only" if columns > 2 else ""
    if low < -SUM_TOLERANCE or high > 1 + SUM_TOLERANCE:
        raise ModelError(
            f"the model's outputs are not probabilities: they go from {low:.4g} to {high:.4g}", hint=logits + scores
        )
    if columns > 1:
        error = float(np.abs(known.sum(axis=1) - 1).max())
        if error > SUM_TOLERANCE:
            raise ModelError(
                f"the model's outputs are not probabilities: the sum of a row differs from 1 by {error:.4g}",
                hint=logits + scores,
            )
