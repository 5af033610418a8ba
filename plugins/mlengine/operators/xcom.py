"""What operators may push to XCom: JSON with finite numbers.

A NaN or an infinity makes Airflow 3.3 fail the task after its work is done: its API client refuses to encode it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar, cast

Result = TypeVar("Result", bound=Mapping[str, Any])


def finite(result: Result) -> Result:
    """``result`` with ``None`` instead of each number that is not finite, in nested mappings and lists, too."""
    return cast(Result, {key: _finite(value) for key, value in result.items()})


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return finite(value)
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
