"""Numbers of things."""

from __future__ import annotations

import pytest

from mlengine.core.plural import first_of, number_of


@pytest.mark.parametrize(("count", "text"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (1234, "1,234 files")])
def test_number_of(count: int, text: str) -> None:
    assert number_of(count, "file") == text


def test_a_long_list_is_cut() -> None:
    assert first_of(()) == ""
    assert first_of([0, "b"], 2) == "0, b"
    assert first_of(range(7)) == "0, 1, 2, 3, 4, 5, …"
