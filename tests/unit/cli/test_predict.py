"""The table of ``mlengine models predict``."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.cli.models.predict import _shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98161, "0.9816"),
        (1234.5, "1234.5000"),
        (0.000012345, "1.234e-05"),
        (-0.0005, "-0.0005"),
        (0.0, "0.0000"),
        (float("nan"), "nan"),
        (7, "7"),
        ("no", "no"),
        (None, "-"),
    ],
)
def test_small_numbers_are_not_shown_as_zero(value: Any, text: str) -> None:
    assert _shown(value) == text
