"""Finds the held-out rows with the largest errors, to be shown to people with their columns."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlengine.core.json_values import json_value
from mlengine.validation.heldout import Heldout, read_rows
from mlengine.validation.metrics.outcomes import Outcomes

if TYPE_CHECKING:
    import numpy as np

MOST = 24
_COLUMNS = 20  # the number of columns of a row that are kept
_PIXELS = 64 * 64  # an image with more pixels is not kept


def worst_rows(heldout: Heldout, outcomes: Outcomes) -> list[dict[str, Any]]:
    """At most :data:`MOST` rows: wrong classes with the highest confidence, or the largest absolute errors.

    Each row has ``row``, ``key``, ``target``, ``prediction``, ``error`` (for a class, the confidence in the wrong one),
    ``columns`` by name, and ``image`` with ``shape`` and ``pixels`` (base64) if the row is a small gray image.
    """
    errors = _errors(outcomes)
    if errors is None:
        return []
    import numpy as np

    candidates = np.flatnonzero(errors > 0)
    if len(candidates) > MOST:  # only the largest errors, and all that equal the last of them, are sorted
        least = np.partition(errors[candidates], -MOST)[-MOST]
        candidates = candidates[errors[candidates] >= least]
    order = candidates[np.argsort(-errors[candidates], kind="stable")][:MOST]
    rows = [int(row) for row in order]
    columns = read_rows(heldout, rows, _shown(heldout))
    return [
        {
            "row": row,
            "key": None if heldout.key is None else json_value(heldout.key[row]),
            "target": _named(heldout, outcomes.target[row]),
            "prediction": _prediction(heldout, outcomes, row),
            "error": round(float(errors[row]), 6),
            **_values(values),
        }
        for row, values in zip(rows, columns, strict=True)
    ]


def _shown(heldout: Heldout) -> list[str]:
    """The names of the columns that are kept: the first scalar columns, and the first column of gray images."""
    scalars = [name for name, (_, shape) in heldout.columns.items() if not shape]
    images = [name for name, (_, shape) in heldout.columns.items() if _is_image(shape)]
    return [*scalars[:_COLUMNS], *images[:1]]


def _is_image(shape: tuple[int, ...]) -> bool:
    gray = len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)
    return gray and math.prod(shape) <= _PIXELS


def _errors(outcomes: Outcomes) -> np.ndarray[Any, Any] | None:
    """The error of each row; 0 for a row without an error."""
    import numpy as np

    values, predicted = outcomes.values, outcomes.predicted
    if outcomes.task == "regression":
        if values is None:
            return None
        found: np.ndarray[Any, Any] = np.nan_to_num(np.abs(values - outcomes.target))
        return found
    if predicted is None:
        return None
    wrong = (predicted != outcomes.target) & (predicted >= 0)
    errors: np.ndarray[Any, Any] = wrong.astype(np.float64)
    if values is not None:
        confidence = np.abs(values - 0.5) + 0.5 if values.ndim == 1 else values.max(axis=1)
        errors = np.where(wrong, np.nan_to_num(confidence), 0.0)
    return errors


def _named(heldout: Heldout, target: Any) -> Any:
    value = json_value(target)
    return json_value(heldout.classes[value]) if heldout.classes else value


def _prediction(heldout: Heldout, outcomes: Outcomes, row: int) -> Any:
    if outcomes.predicted is not None and heldout.classes:
        return json_value(heldout.classes[int(outcomes.predicted[row])])
    return None if outcomes.values is None else round(float(outcomes.values[row]), 6)


def _values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The scalar columns of a row, and its image if it has one."""
    scalars: dict[str, Any] = {}
    image: dict[str, Any] = {}
    for name, value in values.items():
        if getattr(value, "shape", ()):
            image = _image(value)
        else:
            scalars[name] = json_value(value)
    return {"columns": scalars, **({"image": image} if image else {})}


def _image(value: Any) -> dict[str, Any]:
    """A gray image as bytes. Other numbers are scaled to the range from 0 to 255."""
    import numpy as np

    plain = value.reshape(value.shape[:2])
    if plain.dtype != np.uint8:
        numbers = np.nan_to_num(plain.astype(np.float64))
        low, high = numbers.min(), numbers.max()
        plain = ((numbers - low) * (255 / ((high - low) or 1))).round().astype(np.uint8)
    return {"shape": list(plain.shape), "pixels": base64.b64encode(np.ascontiguousarray(plain).tobytes()).decode()}
