"""Champions on the page that change while they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mlengine.web import champions
from mlengine.web.champions import Champions

STORAGE: Any = None
BUCKET = "gs://b"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], Any]], Champions]:
    """A factory of champions whose pointers are returned by a function."""

    def make(pointer: Callable[[str], Any]) -> Champions:
        monkeypatch.setattr(champions, "_pointer", lambda storage, bucket, model: pointer(model))
        return Champions()

    return make


def test_a_champion_changed_during_a_read_is_read_again(read: Callable[..., Champions]) -> None:
    seen: list[str] = []

    def pointer(model: str) -> None:
        seen.append(model)
        if model == "b":
            made.changed(BUCKET, "a")

    made = read(pointer)
    made.current(STORAGE, BUCKET, ["a"])
    assert made.current(STORAGE, BUCKET, ["a", "b"]) == {"a": None, "b": None}
    made.current(STORAGE, BUCKET, ["a", "b"])
    assert seen == ["a", "b", "a"]


def test_values_read_before_a_change_are_not_cached(read: Callable[..., Champions]) -> None:
    stored = ["old"]

    def pointer(model: str) -> str:
        found = stored[0]
        if found == "old":  # a rollback while the response is being sent
            stored[0] = "new"
            made.changed(BUCKET, model)
        return found

    made = read(pointer)
    made.current(STORAGE, BUCKET, ["a"])
    found: dict[str, object] = {**made.current(STORAGE, BUCKET, ["a"])}
    assert found == {"a": "new"}
