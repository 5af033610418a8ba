"""Airflow's components are restarted when they exit unexpectedly, up to a limit."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlengine.core.errors import ComponentFailedError
from mlengine.testing import restart_limit
from mlengine.testing.airflow import Airflow
from mlengine.testing.airflow_home import AirflowConfig
from mlengine.testing.restart_limit import MAX_RESTARTS

SLEEPS = "import time; time.sleep(600)"
FAILS = "import sys; print('the database is locked', flush=True); sys.exit(7)"


@dataclass
class OneLineAirflow(Airflow):
    """An Airflow whose components are one-line Python programs."""

    program: str = SLEEPS

    def start_component(self, name: str) -> None:
        log = self.log_file(name)
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as sink:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-c", self.program], stdout=sink, start_new_session=True
            )


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OneLineAirflow:
    monkeypatch.setattr("mlengine.testing.airflow._CHECK_SECONDS", 0.01)
    monkeypatch.setattr(restart_limit, "FIRST_PAUSE_SECONDS", 0.01)
    return OneLineAirflow(AirflowConfig(home=tmp_path, dags=tmp_path), port=0, password="")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_component_is_restarted_and_reported(airflow: OneLineAirflow) -> None:
    restarted: list[int] = []
    warnings: list[str] = []
    airflow.on_restart = lambda: restarted.append(airflow.processes["scheduler"].pid)
    airflow.warn = warnings.append
    airflow.program = f"print('the last line', flush=True); {SLEEPS}"
    airflow.start_component("scheduler")
    try:
        airflow.supervise()
        first = airflow.processes["scheduler"]
        until(lambda: "the last line" in airflow.log_file("scheduler").read_text())
        first.kill()
        until(lambda: bool(restarted))
        assert restarted != [first.pid]
        airflow.check()
    finally:
        airflow.stop()
    assert (airflow.restarts, airflow.processes) == ({"scheduler": 1}, {})
    assert warnings == ["Airflow's scheduler ended with code -9; restart in 0 s; its last lines:\nthe last line"]


def test_rare_ends_of_a_component_are_not_limited(airflow: OneLineAirflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart_limit, "WINDOW_SECONDS", 0.0)
    airflow.program = FAILS
    airflow.start_component("scheduler")
    airflow.supervise()
    try:
        until(lambda: airflow.restarts.get("scheduler", 0) > 2 * MAX_RESTARTS)
        airflow.check()
    finally:
        airflow.stop()


def test_a_component_that_keeps_ending_is_an_error_with_its_last_log_lines(airflow: OneLineAirflow) -> None:
    airflow.program = FAILS
    airflow.start_component("scheduler")
    airflow.supervise()
    try:
        until(lambda: "scheduler" in airflow.failed)
        assert airflow.restarts == {"scheduler": MAX_RESTARTS}
        with pytest.raises(ComponentFailedError) as caught:
            airflow.check()
    finally:
        airflow.stop()
    assert "scheduler ended with code 7 after 5 restarts in 10 minutes:\n" in str(caught.value)
    assert "the database is locked" in str(caught.value)


def test_before_supervision_an_unexpected_end_is_an_error(airflow: OneLineAirflow) -> None:
    airflow.program = FAILS
    airflow.start_component("scheduler")
    airflow.processes["scheduler"].wait(60)
    with pytest.raises(ComponentFailedError, match="scheduler ended with code 7"):
        airflow.check()


def test_a_stopped_component_stays_stopped(airflow: OneLineAirflow) -> None:
    airflow.start_component("scheduler")
    airflow.start_component("triggerer")
    airflow.supervise()
    try:
        airflow.stop_component("scheduler", kill=True)
        airflow.processes["triggerer"].kill()
        until(lambda: airflow.restarts.get("triggerer") == 1)
        assert list(airflow.processes) == ["triggerer"]
    finally:
        airflow.stop()
