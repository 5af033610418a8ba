"""Airflow's components are started again when they end by themselves, but not for ever."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlengine.core.errors import StackError
from mlengine.testing.airflow import MOST_RESTARTS, Airflow
from mlengine.testing.airflow_home import AirflowConfig


@dataclass
class Quick(Airflow):
    """Its scheduler is a Python of a line: what supervises does not look into it."""

    program: str = ""

    def start_component(self, name: str) -> None:
        self.processes[name] = subprocess.Popen([sys.executable, "-c", self.program], start_new_session=True)


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quick:
    monkeypatch.setattr("mlengine.testing.airflow._LOOK_SECONDS", 0.01)
    return Quick(AirflowConfig(home=tmp_path, dags=tmp_path), port=0, password="")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_killed_comes_back(quick: Quick) -> None:
    told: list[int] = []
    quick.on_restart = lambda: told.append(quick.processes["scheduler"].pid)
    quick.program = "import time; time.sleep(600)"
    quick.start_component("scheduler")
    try:
        quick.supervise()
        first = quick.processes["scheduler"]
        first.kill()
        until(lambda: bool(told))
        assert told != [first.pid]
        quick.check()
    finally:
        quick.stop()
    assert (quick.restarts, quick.processes) == ({"scheduler": 1}, {})


def test_what_ends_again_and_again_is_an_error(quick: Quick) -> None:
    quick.program = "raise SystemExit(7)"
    quick.start_component("scheduler")
    quick.supervise()
    try:
        until(lambda: quick.restarts.get("scheduler") == MOST_RESTARTS)
        quick.processes["scheduler"].wait(60)
        with pytest.raises(StackError, match="scheduler ended with code 7"):
            quick.check()
    finally:
        quick.stop()


def test_before_it_is_supervised_an_end_is_an_error(quick: Quick) -> None:
    quick.program = "raise SystemExit(7)"
    quick.start_component("scheduler")
    quick.processes["scheduler"].wait(60)
    with pytest.raises(StackError, match="scheduler ended with code 7"):
        quick.check()


def test_what_is_stopped_stays_stopped(quick: Quick) -> None:
    quick.program = "import time; time.sleep(600)"
    quick.start_component("scheduler")
    quick.start_component("triggerer")
    quick.supervise()
    try:
        quick.stop_component("scheduler", kill=True)
        quick.processes["triggerer"].kill()
        until(lambda: quick.restarts.get("triggerer") == 1)
        assert list(quick.processes) == ["triggerer"]
    finally:
        quick.stop()
