"""The user who triggered a run."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.web import triggering_users


def test_a_failed_query_is_not_an_empty_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> Any:
        raise OSError("the database is down")

    monkeypatch.setattr(triggering_users, "_query", fail)
    assert triggering_users.triggered_by({("dag", "run")}) is None
