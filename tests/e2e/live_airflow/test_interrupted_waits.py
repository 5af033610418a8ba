"""The kill matrix: every way to end a deferred wait in every state of its job, with expected and actual outcomes.

All cells run in one Airflow with its real scheduler and triggerer, each as a separate run. Waits for jobs that "just
finished" poll once and then not for ten minutes, so they have not seen that the job finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from mlengine.core.job import JobState
from mlengine.testing.airflow_api import AirflowApi
from tests.support.kill_matrix import Cell, act, act_all, deferred, ends, play, scene, waits_in, watched
from tests.support.live_airflow import Job, LiveAirflow, persist, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]

STATES = ("queued", "preparing", "running", "just finished")
OUTCOME_SECONDS = 900.0  # only a machine that is very busy needs minutes


@dataclass(frozen=True)
class Event:
    """One way to end a wait.

    :param dag: the DAG with the wait; waits in ``_late`` variants do not see that their job has finished.
    :param act: what the user does; ``None`` if the event happens without a user.
    :param task: the expected state of the task.
    :param task_if_finished: the expected state of the task if the job had just finished.
    :param attempts: the expected states of the job's attempts.
    """

    dag: str
    act: Callable[[AirflowApi, Job], None] | None
    task: str
    task_if_finished: str
    attempts: tuple[str, ...] = ("CANCELLED",)


EVENTS: Mapping[str, Event] = {
    "mark failed": Event("wait_plain", lambda api, job: job.mark("failed"), "failed", "failed"),
    "mark success": Event("wait_plain", lambda api, job: job.mark("success"), "success", "success"),
    # If only the wait is cleared, it continues with attempt 2, which resumes from the checkpoint of attempt 1.
    "clear": Event(
        "wait_plain",
        lambda api, job: persist(api.clear, _run(job), "wait"),
        "deferred",
        "success",
        ("CANCELLED", "live"),
    ),
    "run failed": Event(
        "wait_plain", lambda api, job: persist(api.set_run_state, _run(job), "failed"), "failed", "failed"
    ),
    "task timeout": Event("wait_limit", None, "failed", "success"),
    "our deadline": Event("wait_deadline", None, "failed", "success"),
    "DAG timeout": Event("wait_dagtimeout", None, "skipped", "skipped"),
}


Matrix = dict[tuple[str, str], Cell]


@pytest.fixture(scope="module")
def matrix(live_airflow: LiveAirflow) -> Matrix:
    """All cells, after each has reached its outcome or the timeout."""
    blocker = live_airflow.submit("blocker", place="full")
    until(lambda: blocker.state is JobState.RUNNING, "the blocking job runs")
    limited = [name for name, event in EVENTS.items() if event.act is None]
    cells = _finished_before_the_limit(live_airflow, limited)
    others = [(event, state) for event in EVENTS for state in STATES if (event, state) not in cells]
    cells |= {(event, state): _cell(live_airflow, event, state) for event, state in others}
    play(live_airflow, cells.values(), OUTCOME_SECONDS)
    # The timeout of a DAG run starts before its tasks: on a busy machine it may pass before the wait begins.
    missed = [key for key in others if key[0] == "DAG timeout" and not cells[key].job.watched()]
    repeated = {(event, state): _cell(live_airflow, event, state, "slow") for event, state in missed}
    play(live_airflow, repeated.values(), OUTCOME_SECONDS)
    return cells | repeated


def _finished_before_the_limit(live_airflow: LiveAirflow, events: Sequence[str]) -> Matrix:
    """Cells whose job finished before the limit of its wait passed, and whose wait has not polled since.

    They start before all others, whose load would delay the jobs. On a busy machine a job may still finish too late:
    its cell is then repeated with a longer limit.
    """
    cells: Matrix = {}
    for limit in ("late", "later"):
        late = [name for name in events if (name, STATES[-1]) not in cells]
        begun = {(name, STATES[-1]): _cell(live_airflow, name, STATES[-1], limit) for name in late}
        act_all(live_airflow, begun.values(), OUTCOME_SECONDS)
        cells |= {key: cell for key, cell in begun.items() if cell.job.state is JobState.SUCCEEDED or limit == "later"}
    return cells


def _cell(live_airflow: LiveAirflow, name: str, state: str, limit: str = "") -> Cell:
    event, finished = EVENTS[name], state == STATES[-1]
    variant = limit or ("late" if finished else "")
    # Jobs in one place share one poll. A job whose end must stay unseen gets a place that no other job uses.
    places = {"queued": "full", STATES[-1]: f"{variant}-{name.replace(' ', '-')}"}
    options: dict[str, Any] = {"place": places.get(state, "roomy")}
    if state == "preparing":
        options["package"] = live_airflow.slow_package
    job = live_airflow.submit(f"{name} {state}".replace(" ", "-").lower(), **options)
    dag = f"{event.dag}_{variant}" if variant else event.dag
    begin = waits_in(dag, JobState.RUNNING if finished else JobState(state.upper()))
    reach = (watched, ends) if finished else (deferred, watched) if event.act else ()
    user_action = event.act
    acts = (act(lambda live_airflow, job: user_action(live_airflow.api, job)),) if user_action else ()
    expected = (event.task_if_finished, ("SUCCEEDED",)) if finished else (event.task, event.attempts)
    return Cell(job, expected, scene(live_airflow, job, begin, *reach, *acts))


def _run(job: Job) -> Any:
    return job.run


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_the_job_ends_when_its_wait_ends(matrix: Matrix, event: str, state: str) -> None:
    cell = matrix[event, state]
    assert cell.seen == cell.expected, "\n".join(cell.job.log()) if cell.job.run else "the wait never started"
