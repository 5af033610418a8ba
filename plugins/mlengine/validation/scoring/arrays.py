"""Converts the values of columns to the dtype, shape and scale of a model's input. Loss of information is an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .matching import listed
from .rows import Batch


def gather(
    batch: Batch, columns: list[str], dtype: str, shape: Sequence[int | None] | None, scale: float | None = None
) -> Any:
    """The array for an input.

    :param columns: one column, or several numbers that become a matrix.
    :param dtype: NumPy's name of the input's type; ``string`` for text and bytes.
    :param shape: the shape of one value of the input; ``None`` if any. Unknown sizes are -1 or ``None``.
    :param scale: the divisor of numbers. With ``None``, it is 255 for images of bytes for an input of floats, else 1.
    :raises ValueError: the values do not fit the input.
    """
    values = batch[columns[0]] if len(columns) == 1 else _matrix(batch, columns, dtype)
    if scale is None and len(columns) > 1:
        scale = 1.0  # scalar numbers of one byte are no image
    what = columns[0] if len(columns) == 1 else f"the columns {listed(columns)}"
    values = _text(values, what) if dtype == "string" else numbers(values, dtype, what, scale=scale)
    return values if shape is None else _reshaped(values, shape, what)


def _matrix(batch: Batch, columns: list[str], dtype: str) -> Any:
    """The matrix of several columns.

    :raises ValueError: a column has tensors, or is text and the input takes numbers.
    """
    import numpy as np

    for name in columns:
        if batch[name].ndim > 1:
            raise ValueError(f"{name} has tensors, which are no column of a matrix: give it an input of its own")
        if batch[name].dtype == object and dtype != "string":
            raise ValueError(f"{name} is text, and the model's input takes {dtype}")
    return np.stack([batch[name] for name in columns], axis=1)


def numbers(values: Any, dtype: str, what: str, *, scale: float | None = None) -> Any:
    """``values`` converted to ``dtype``. If it is an integer type, it must be able to represent them exactly."""
    import numpy as np

    if values.dtype == object:
        raise ValueError(f"{what} is text, and the model's input takes {dtype}")
    target = np.dtype(dtype)
    if scale is None:
        scale = 255.0 if target.kind == "f" and values.dtype == np.uint8 and values.ndim > 1 else 1.0
    if scale != 1:
        values = values.astype(np.float32) / np.float32(scale)
    if values.dtype == target:
        return values
    with np.errstate(invalid="ignore"):
        cast = values.astype(target)
    if target.kind not in "fcV" and not np.array_equal(cast, values):
        raise ValueError(
            f"the model's input of type {target.name} does not hold the values of {what}: {values.dtype.name},"
            f" {np.nanmin(values)} to {np.nanmax(values)}"
        )
    return cast


def check_categories(values: Any, known: Sequence[Any], name: str) -> None:
    """Check that the values of a column and the categories of its feature are of one kind: strings or numbers.

    :param values: an array, or a series of pandas.
    :raises ValueError: they are not, so that no value is a known category.
    """
    found = {"O": "strings", "i": "numbers", "u": "numbers", "f": "numbers", "b": "numbers"}.get(values.dtype.kind)
    kinds = {"strings" if isinstance(one, str) else "numbers" for one in known}
    if found and kinds and found not in kinds:
        shown = ", ".join(repr(one) for one in known[:3])
        raise ValueError(
            f"{name} has {found}, and the categories with which the model was trained are {kinds.pop()} ({shown}):"
            " train on the values of the dataset, or give a scorer that converts them"
        )


def _text(values: Any, what: str) -> Any:
    """The values as strings. A missing one becomes an empty string: TensorFlow and ONNX have no missing value."""
    import numpy as np

    if values.dtype != object:
        raise ValueError(f"{what} has {values.dtype.name} values, and the model's input takes text")
    missing = (values == None).astype(bool)  # noqa: E711 -- of each value
    return np.where(missing, "", values) if missing.any() else values


def _reshaped(values: Any, shape: Sequence[int | None], what: str) -> Any:
    sizes = [-1 if size is None else size for size in shape]
    try:
        return values.reshape([len(values), *sizes])
    except ValueError:
        raise ValueError(
            f"the model's input takes values of shape {sizes}, and those of {what} have {list(values.shape[1:])}"
        ) from None
