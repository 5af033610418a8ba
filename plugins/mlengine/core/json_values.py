"""Converts values of any type to JSON's types, for documents that programs read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def json_value(value: Any) -> Any:
    """``value`` converted to JSON's types.

    NumPy's numbers and arrays become Python's, NaN and infinity become ``None``, and other objects become strings.
    Mappings and sequences are converted with all that they contain.
    """
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [json_value(item) for item in value]
    if hasattr(value, "tolist"):
        return json_value(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int | str | None) else str(value)
