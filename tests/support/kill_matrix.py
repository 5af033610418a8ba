"""Cells of a kill matrix: a wait, an event, and the expected outcome. All cells run concurrently.

The events of a cell are a script: a generator that yields while it waits. One loop advances all scripts, so that the
matrix takes only as long as its slowest cell. Runs are triggered one at a time (:meth:`LiveAirflow.trigger` limits the
rate).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlengine.core.job import JobState
from mlengine.testing.airflow_api import TaskRun
from tests.support.live_airflow import Job, LiveAirflow, check

log = logging.getLogger(__name__)

Script = Callable[[LiveAirflow, Job], Iterator[Any]]


@dataclass
class Cell:
    """One case and its last observed outcome.

    :param expected: the state of the wait, and the states of the job's attempts.
    :param ignore_repeats: count several attempts with the same outcome as one.
    """

    job: Job
    expected: tuple[str, tuple[str, ...]]
    steps: Iterator[Any]
    ignore_repeats: bool = False
    acted: bool = False
    seen: tuple[str | None, tuple[str, ...]] = (None, ())

    def advance(self, tasks: Mapping[str, TaskRun]) -> None:
        """Advance the script by one step; once it has ended, record the outcome."""
        if not self.acted:
            self.acted = next(self.steps, self) is self
            return
        states = (status.state for status in self.job.attempts)
        attempts = tuple("live" if not state.terminal else state.value for state in states)
        if self.ignore_repeats:
            attempts = tuple(dict.fromkeys(attempts))
        task = tasks.get(self.job.run.run_id) if self.job.run else None
        self.seen = (task.state if task else None, attempts)


def act_all(live_airflow: LiveAirflow, cells: Iterable[Cell], seconds: float) -> None:
    """Run the scripts of all cells to their ends; returns early if ``seconds`` have passed."""
    _run(live_airflow, cells, seconds, lambda cell: cell.acted)


def play(live_airflow: LiveAirflow, cells: Iterable[Cell], seconds: float) -> None:
    """Run until all outcomes are as expected or ``seconds`` have passed.

    ``seen`` then has the actual outcome of each cell.
    """
    _run(live_airflow, cells, seconds, lambda cell: cell.acted and cell.seen == cell.expected)


def _run(live_airflow: LiveAirflow, cells: Iterable[Cell], seconds: float, done: Callable[[Cell], bool]) -> None:
    waiting = list(cells)
    deadline = time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        check()
        for cell in list(waiting):
            cell.advance(live_airflow.waits())
            if done(cell):
                log.info("%s is done", cell.job.name)
                waiting.remove(cell)
        time.sleep(0.5)


def waits_in(dag: str, state: JobState, **conf: str) -> Script:
    """Begin a wait once the job is in ``state``. ``conf`` is added to the run's configuration."""

    def script(_: LiveAirflow, job: Job) -> Iterator[Any]:
        while job.state is not state:
            yield
        job.wait_in(dag, **conf)

    return script


def deferred(live_airflow: LiveAirflow, job: Job) -> Iterator[Any]:
    """Wait until the task is deferred."""
    assert job.run is not None
    while (task := live_airflow.waits().get(job.run.run_id)) is None or task.state != "deferred":
        yield


def watched(_: LiveAirflow, job: Job) -> Iterator[Any]:
    """Wait until the wait has polled the job."""
    while not job.watched():
        yield


def ends(_: LiveAirflow, job: Job) -> Iterator[Any]:
    """Let the job succeed."""
    job.end()
    while not job.state.terminal:
        yield


def act(action: Callable[[LiveAirflow, Job], Any]) -> Script:
    """Call a function, such as something that a user does in Airflow."""

    def script(live_airflow: LiveAirflow, job: Job) -> Iterator[Any]:
        action(live_airflow, job)
        yield

    return script


def scene(live_airflow: LiveAirflow, job: Job, *scripts: Script) -> Iterator[Any]:
    """Run several scripts one after another."""
    for script in scripts:
        yield from script(live_airflow, job)
