"""The same promise without a triggerer, and where no code of ours runs at all when the task ends.

Waits in ``poke`` and in ``reschedule`` mode; a task, or its worker, that is killed with SIGKILL on its last try; a run
that is marked while its job is submitted and not yet waited for.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.core.job import JobRecord, JobState
from mlengine.core.layout import JobDir
from mlengine.testing.airflow_api import DagRun
from tests.e2e.life_cells import Cell, Script, act, ends, play, scene, waits_in, watched
from tests.e2e.life_lab import QUICK, Job, Lab, persist, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

OUTCOME_SECONDS = 240.0


@dataclass(frozen=True)
class Case:
    """What is to come of a wait (``task``) and of its job's ``attempts``.

    :param scripts: what happens once it waits.
    :param state: the job's, when the wait begins.
    """

    dag: str
    task: str
    attempts: tuple[str, ...]
    scripts: tuple[Script, ...] = (watched,)
    state: JobState = JobState.RUNNING


def _mark(state: str) -> Script:
    return act(lambda _, job: job.mark(state))


def _mark_until_it_holds(state: str) -> Script:
    """Airflow's scheduler, about to run a rescheduled task again, can write over what a person has just marked."""

    def script(_: Lab, job: Job) -> Iterator[Any]:
        held = 0
        while held < 2:
            if job.task.state == state:
                held += 1
            else:
                job.mark(state)
                held = 0
            look = time.monotonic() + 2.0
            while time.monotonic() < look:
                yield

    return script


def _runs_again(_: Lab, job: Job) -> Iterator[Any]:
    while [status.state.terminal for status in job.attempts] != [True, False]:
        yield


def _kill(whole_worker: bool) -> Script:
    """SIGKILL to the task's process, or to the worker's with it."""

    def script(lab: Lab, job: Job) -> Iterator[Any]:
        notes = _pids(lab, job)
        while not (notes.exists() and job.watched()):
            yield
        task, worker = map(int, notes.read_text().split())
        for pid in (worker, task) if whole_worker else (task,):
            os.kill(pid, signal.SIGKILL)

    return script


def _pids(lab: Lab, job: Job) -> Path:
    return lab.root / f"{job.name}.pids"


CANCELLED, DONE = ("CANCELLED",), ("SUCCEEDED",)
AGAIN = (watched, act(lambda lab, job: persist(lab.api.clear, job.run, "wait")), _runs_again, ends)
CASES = {
    # No code of ours is asked when these end; the whole worker is missed after 30 s.
    "last try, worker killed": Case("life_last_try", "failed", CANCELLED, (_kill(whole_worker=True),)),
    "last try, task killed": Case("life_last_try", "failed", CANCELLED, (_kill(whole_worker=False),)),
    "poke, task timeout": Case("life_poke_limit", "failed", ("CANCELLED", "CANCELLED")),
    "poke, our deadline": Case("life_poke_deadline", "failed", CANCELLED, state=JobState.PREPARING),
    "poke, cleared": Case("life_poke", "success", ("CANCELLED", "SUCCEEDED"), AGAIN),
    "poke, marked failed": Case("life_poke", "failed", CANCELLED, (watched, _mark("failed")), JobState.QUEUED),
    "poke, finished": Case("life_poke", "success", DONE, (watched, ends)),
    "reschedule, our deadline": Case("life_reschedule_deadline", "failed", CANCELLED, state=JobState.QUEUED),
    # Its run goes on: the job does not.
    "reschedule, marked failed": Case("life_beside", "failed", CANCELLED, (watched, _mark_until_it_holds("failed"))),
    "reschedule, marked success": Case(
        "life_reschedule", "success", CANCELLED, (watched, _mark_until_it_holds("success")), JobState.PREPARING
    ),
    "reschedule, finished": Case("life_reschedule", "success", DONE, (watched, ends)),
}


@pytest.fixture(scope="module")
def cells(lab: Lab) -> dict[str, Cell]:
    """Every case, at its end."""
    blocker = lab.submit("blocker", place="full-sync")
    until(lambda: blocker.state is JobState.RUNNING, "the blocker runs")
    made = {name: _cell(lab, name, case) for name, case in CASES.items()}
    play(lab, made.values(), OUTCOME_SECONDS)
    return made


def _cell(lab: Lab, name: str, case: Case) -> Cell:
    options: dict[str, Any] = {"place": "full-sync" if case.state is JobState.QUEUED else "roomy"}
    if case.state is JobState.PREPARING:
        options["package"] = lab.slow_package
    job = lab.submit(name.replace(", ", "-").replace(" ", "-"), **options)
    begin = waits_in(case.dag, case.state, pids=str(_pids(lab, job)))
    marked = name.startswith("reschedule, marked")  # a mark that was written over has cost an attempt
    return Cell(job, (case.task, case.attempts), scene(lab, job, begin, *case.scripts), alike_are_one=marked)


@pytest.mark.parametrize("name", CASES)
def test_the_job_ends_with_its_task(cells: dict[str, Cell], name: str) -> None:
    cell = cells[name]
    assert cell.seen == cell.expected, "\n".join(cell.job.log()) if cell.job.run else "it never began"


@pytest.fixture(scope="module")
def gaps(lab: Lab) -> dict[str, DagRun]:
    """Runs that are somewhere between the submission of their job and the wait for it."""
    lab.api.wait_for_dag("life_gap")
    runs = {}
    for state in ("failed", "success"):
        name = f"gap-{uuid.uuid4().hex[:6]}"
        job_file = {
            "trainingInput": {
                "pythonModule": "sleeper",
                "packageUris": [lab.quick_package],
                "args": ["--until", str(lab.root / "end-never")],
            }
        }
        job_dir = JobDir.of(lab.bucket, "life", name.replace("-", "_"))
        job = {"model": "life", "job_id": job_dir.job_id, "job_dir": job_dir.uri}
        runs[state] = lab.trigger("life_gap", {"dir": job, "options": _gap(lab), "job_file": job_file}, name)
    return runs


def _gap(lab: Lab) -> dict[str, Any]:
    return {"state_dir": str(lab.root / "gap"), "max_concurrent_jobs": 200, **QUICK}


@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_run_that_is_marked_before_its_job_is_waited_for(lab: Lab, gaps: dict[str, DagRun], state: str) -> None:
    run = gaps[state]

    def tasks() -> dict[str, str | None]:
        return {task.task_id: task.state for task in persist(lab.api.tasks, run.dag_id, run.run_id)}

    until(lambda: tasks().get("hold") == "running", "the job is submitted")
    backend = LocalBackend(**_gap(lab))
    claim = JobDir.of(lab.bucket, "life", run.run_id.replace("-", "_")).claim
    (handle,) = backend.find(JobRecord.from_bytes(lab.storage.read(claim)).key)
    until(lambda: backend.describe([handle])[0].state is JobState.RUNNING, "it runs")
    persist(lab.api.set_run_state, run, state)
    until(lambda: backend.describe([handle])[0].state is JobState.CANCELLED, "it is ended")
    assert tasks()["wait"] in {None, "skipped"}
