"""The same promise without a triggerer, and where no code of ours runs at all when the task ends.

Waits in ``poke`` and in ``reschedule`` mode; a run that is marked while its job is submitted and not yet waited for.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.core.job import JobKey, JobState
from mlengine.core.layout import JobDir
from tests.e2e.life_lab import QUICK, Job, Lab, persist, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Case:
    """:param attempts: the states of the job's attempts at the end."""

    dag: str
    act: Callable[[Lab, Job], Any] | None
    task: str
    attempts: tuple[str, ...] = ("CANCELLED",)


def _clear(lab: Lab, job: Job) -> None:
    persist(lab.api.clear, job.run, "wait")


CASES = {
    "poke, marked failed": Case("life_poke", lambda _, job: job.mark("failed"), "failed"),
    "poke, cleared": Case("life_poke", _clear, "running", ("CANCELLED", "live")),
    "poke, task timeout": Case("life_poke_limit", None, "failed", ("CANCELLED", "CANCELLED")),
    "poke, our deadline": Case("life_poke_deadline", None, "failed"),
    "poke, finished": Case("life_poke", lambda _, job: job.end(), "success", ("SUCCEEDED",)),
    "reschedule, marked failed": Case("life_reschedule", lambda _, job: job.mark("failed"), "failed"),
    "reschedule, marked success": Case("life_reschedule", lambda _, job: job.mark("success"), "success"),
    "reschedule, our deadline": Case("life_reschedule_deadline", None, "failed"),
    "reschedule, finished": Case("life_reschedule", lambda _, job: job.end(), "success", ("SUCCEEDED",)),
}


@pytest.fixture(scope="module")
def jobs(lab: Lab) -> dict[str, Job]:
    """A job for each case; what happens to it has happened."""
    made = {name: lab.submit(name.replace(", ", "-").replace(" ", "-")) for name in CASES}
    for name, job in made.items():
        until(lambda job=job: job.state is JobState.RUNNING, f"{name} runs")  # type: ignore[misc]
    # Two at a time: a wait in poke mode keeps its worker.
    for name, job in made.items():
        job.wait_in(CASES[name].dag)
        act = CASES[name].act
        if act is not None:
            until(job.watched, f"{name} is waited for: {job.task}")
            act(lab, job)
            until(lambda name=name, job=job: _seen(job) == _expected(name), f"{name}: {_expected(name)}")  # type: ignore[misc]
            if job.live:
                job.end()
    return made


def _expected(name: str) -> tuple[set[str], tuple[str, ...]]:
    return {CASES[name].task}, CASES[name].attempts


def _seen(job: Job) -> tuple[set[str], tuple[str, ...]]:
    state = job.task.state or ""
    return (
        {"running" if state in {"up_for_reschedule", "scheduled", "queued"} else state},
        tuple("live" if not status.state.terminal else status.state.value for status in job.attempts),
    )


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.act is not None])
def test_the_job_ends_with_its_task(jobs: dict[str, Job], name: str) -> None:
    job = jobs[name]
    ended = "SUCCEEDED" if name == "poke, cleared" else CASES[name].attempts[-1]
    until(lambda: job.attempts[-1].state.value == ended, f"{name}: {ended}")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.act is None])
def test_limits_end_the_job_too(jobs: dict[str, Job], name: str) -> None:
    job = jobs[name]
    until(lambda: _seen(job) == _expected(name), f"{name}: {_expected(name)}")


@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_run_that_is_marked_before_its_job_is_waited_for(lab: Lab, state: str) -> None:
    lab.api.wait_for_dag("life_gap")
    name = f"gap-{uuid.uuid4().hex[:6]}"
    options = {"state_dir": str(lab.root / "gap"), "capacity": 200, **QUICK}
    job_file = {
        "trainingInput": {
            "pythonModule": "sleeper",
            "packageUris": [lab.quick_package],
            "args": ["--until", str(lab.root / "end-never")],
        }
    }
    job_dir = JobDir.of(lab.bucket, "life", name.replace("-", "_"))
    job = {"model": "life", "job_id": job_dir.job_id, "job_dir": job_dir.uri}
    run = lab.trigger("life_gap", {"dir": job, "options": options, "job_file": job_file}, name)

    def tasks() -> dict[str, str | None]:
        return {task.task_id: task.state for task in persist(lab.api.tasks, "life_gap", name)}

    until(lambda: tasks().get("hold") == "running", "the job is submitted")
    backend = LocalBackend(**options)  # type: ignore[arg-type]
    (handle,) = backend.find(JobKey("life_gap", name, "submit").digest)
    until(lambda: backend.describe([handle])[0].state is JobState.RUNNING, "it runs")
    persist(lab.api.set_run_state, run, state)
    until(lambda: backend.describe([handle])[0].state is JobState.CANCELLED, "it is ended")
    assert tasks()["wait"] in {None, "skipped"}
