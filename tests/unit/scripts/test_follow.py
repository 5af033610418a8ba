"""Following a DAG run on the terminal."""

from __future__ import annotations

from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any

import pytest
from scripts.console import Console
from scripts.follow import Follower

from mlengine.testing import airflow_api
from mlengine.testing.airflow_api import AirflowApi, DagRun


def test_a_training_of_days_is_followed_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error would stop the stack, and cancel the job."""
    states = chain(repeat("running", 50), ["success"])
    api = AirflowApi("http://127.0.0.1:1", "admin", "p")
    monkeypatch.setattr(api, "run", lambda dag, run: DagRun(dag, run, next(states), None, {}))
    monkeypatch.setattr(api, "tasks", lambda *_: [])
    hours = iter(range(1000))
    clock = SimpleNamespace(monotonic=lambda: 3600.0 * next(hours), sleep=lambda _: None)
    monkeypatch.setattr(airflow_api, "time", clock)
    stack: Any = SimpleNamespace(airflow=SimpleNamespace(api=api), check=lambda: None)
    assert Follower(stack, Console()).follow(DagRun("d", "r", "queued", None, {})).state == "success"
