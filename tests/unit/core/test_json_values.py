"""The values in JSON documents for programs."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlengine.core.json_values import json_value

CASES: dict[str, tuple[Any, Any]] = {
    "int64": (np.int64(3), 3),
    "float32": (np.float32(0.5), 0.5),
    "bool": (np.bool_(True), True),
    "array": (np.array([[1.0, np.nan]]), [[1.0, None]]),
    "nan": (float("nan"), None),
    "infinity": (float("-inf"), None),
    "date": (date(2026, 11, 1), "2026-11-01"),
    "datetime64": (np.datetime64("2026-11-01T06:00"), "2026-11-01 06:00:00"),
    "datetime": (datetime(2026, 11, 1, 6, tzinfo=UTC), "2026-11-01 06:00:00+00:00"),
    "path": (Path("a/b"), "a/b"),
    "bytes": (b"x", "b'x'"),
    "nested": ({"a": (1, [float("inf")]), 2: None}, {"a": [1, [None]], "2": None}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_value_of_a_document_is_read_by_type(name: str) -> None:
    value, expected = CASES[name]
    assert json_value(value) == expected
    json.dumps(json_value(value), allow_nan=False)
