"""The kill matrix: every way to end a deferred wait, in every state of its job; what is expected, and what is seen.

All cells run at once in one Airflow with its real scheduler and triggerer. Each is a run of its own; the waiting for
its outcome is shared, so that the whole takes as long as its slowest cell.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from mlengine.core.job import JobState
from mlengine.testing.airflow_api import AirflowApi, TaskRun
from tests.e2e.life_lab import Job, Lab, persist, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

log = logging.getLogger(__name__)

STATES = ("queued", "preparing", "running", "just finished")
OUTCOME_SECONDS = 180.0


@dataclass(frozen=True)
class Event:
    """One way to end a wait.

    :param dag: the wait it happens to; ``_late`` ones do not see that their job has finished.
    :param act: what a person does; nothing for what comes by itself.
    :param task: the task's state after it.
    :param task_if_finished: likewise, if the job had just finished.
    :param attempts: the states of the job's attempts after it.
    """

    dag: str
    act: Callable[[AirflowApi, Job], None] | None
    task: str
    task_if_finished: str
    attempts: tuple[str, ...] = ("CANCELLED",)


EVENTS: Mapping[str, Event] = {
    "mark failed": Event("life_plain", lambda api, job: job.mark("failed"), "failed", "failed"),
    "mark success": Event("life_plain", lambda api, job: job.mark("success"), "success", "success"),
    # Cleared alone, the wait goes on with attempt 2, which takes up the checkpoint of attempt 1.
    "clear": Event(
        "life_plain",
        lambda api, job: persist(api.clear, _run(job), "wait"),
        "deferred",
        "success",
        ("CANCELLED", "live"),
    ),
    "run failed": Event(
        "life_plain", lambda api, job: persist(api.set_run_state, _run(job), "failed"), "failed", "failed"
    ),
    "task timeout": Event("life_limit", None, "failed", "success"),
    "our deadline": Event("life_deadline", None, "failed", "success"),
    "DAG timeout": Event("life_dagtimeout", None, "skipped", "skipped"),
}


@dataclass
class Cell:
    """One case, and what was last seen of it."""

    event: Event
    job: Job
    finished: bool
    seen: tuple[str | None, tuple[str, ...]] = (None, ())

    @property
    def expected(self) -> tuple[str, tuple[str, ...]]:
        if self.finished:
            return self.event.task_if_finished, ("SUCCEEDED",)
        return self.event.task, self.event.attempts

    def look(self, tasks: Mapping[str, TaskRun]) -> bool:
        """Whether it is as expected by now."""
        states = (status.state for status in self.job.attempts)
        attempts = tuple("live" if not state.terminal else state.value for state in states)
        self.seen = (tasks[_run(self.job).run_id].state, attempts)
        return self.seen == self.expected


Matrix = dict[tuple[str, str], Cell]


@pytest.fixture(scope="module")
def matrix(lab: Lab) -> Matrix:
    """All cells, each at its end."""
    blocker = lab.submit("blocker", place="full")
    until(lambda: blocker.state is JobState.RUNNING, "the blocker runs")
    cells: Matrix = {}
    # What comes by itself comes last: the others take their time to get where they wait.
    for by_itself in (False, True):
        names = [name for name, event in EVENTS.items() if (event.act is None) == by_itself]
        some = {(event, state): _cell(lab, event, state) for event in names for state in STATES}
        _bring_there(lab, some)
        for cell in some.values():
            if cell.event.act is not None:
                cell.event.act(lab.api, cell.job)
        cells |= some
    waiting = list(cells.values())
    deadline = time.monotonic() + OUTCOME_SECONDS
    while waiting and time.monotonic() < deadline:
        tasks = lab.waits()
        for cell in list(waiting):
            if cell.look(tasks):
                log.info("%s is as expected", cell.job.name)
                waiting.remove(cell)
        time.sleep(1.0)
    tasks = lab.waits()
    for cell in cells.values():
        cell.look(tasks)
    return cells


def _bring_there(lab: Lab, cells: Matrix) -> None:
    """Every job in its state, every wait deferred; who shall have just finished, finishes as soon as it was seen."""
    waiting = dict(cells)

    def started() -> bool:
        # Each waits for its own state only: the first are waited for while the last are still made.
        for (event, state), cell in list(waiting.items()):
            if cell.job.run is None:
                if cell.job.state is _job_state(state):
                    cell.job.wait_in(cell.event.dag + ("_late" if cell.finished else ""))
            elif cell.finished:
                if cell.job.watched():
                    cell.job.end()
                    log.info("%s is deferred", cell.job.name)
                    del waiting[event, state]
            elif _deferred(lab, cell.job):
                log.info("%s is deferred", cell.job.name)
                del waiting[event, state]
        return not waiting

    until(started, "all are waited for")
    for cell in cells.values():
        if cell.finished:
            until(partial(_is_in, cell.job, JobState.SUCCEEDED), f"{cell.job.name} ends")


def _deferred(lab: Lab, job: Job) -> bool:
    task = lab.waits().get(_run(job).run_id)
    # Or beyond that already: what comes by itself does not wait for us.
    return task is not None and task.state not in {None, "scheduled", "queued", "running"}


def _is_in(job: Job, state: JobState) -> bool:
    return job.state is state


def _cell(lab: Lab, event: str, state: str) -> Cell:
    # Jobs of one place share one poll: one that shall not be seen to finish has a place of its own.
    places = {"queued": "full", "just finished": f"late-{event.replace(' ', '-')}"}
    options: dict[str, Any] = {"place": places.get(state, "roomy")}
    if state == "preparing":
        options["package"] = lab.slow_package
    job = lab.submit(f"{event} {state}".replace(" ", "-").lower(), **options)
    return Cell(EVENTS[event], job, finished=state == "just finished")


def _job_state(state: str) -> JobState:
    return JobState.RUNNING if state == "just finished" else JobState(state.upper())


def _run(job: Job) -> Any:
    return job.run


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_the_job_ends_with_its_task(matrix: Matrix, event: str, state: str) -> None:
    cell = matrix[event, state]
    assert cell.seen == cell.expected, "\n".join(cell.job.log())
