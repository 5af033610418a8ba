"""Numbers of things."""

from __future__ import annotations

import pytest

from mlengine.core.plural import number_of


@pytest.mark.parametrize(("count", "text"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (1234, "1,234 files")])
def test_number_of(count: int, text: str) -> None:
    assert number_of(count, "file") == text
