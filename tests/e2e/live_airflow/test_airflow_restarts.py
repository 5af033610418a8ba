"""Restarts parts of Airflow under running jobs: the triggerer (cleanly and by SIGKILL), the scheduler, everything.

The waits continue and the jobs are not affected. The task's log has every line of every replica once; only lines
that a killed triggerer logged after it last saved its cursor appear twice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from mlengine.core.job import JobState
from mlengine.jobs.log_forwarding import FLUSH_SECONDS, RESUMED
from mlengine.jobs.progress import read_cursor
from mlengine.testing import airflow
from tests.support.idle_trainer import idle_trainer
from tests.support.live_airflow import LiveAirflow, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]


@dataclass(frozen=True)
class Outcome:
    """What was observed of the jobs that ran through all restarts."""

    tasks: Mapping[str, tuple[str | None, int]]
    attempts: Mapping[str, tuple[JobState, ...]]
    log: list[str]
    failed_log: list[str]
    changed: list[str]


@pytest.fixture(scope="module")
def outcome(live_airflow: LiveAirflow) -> Outcome:
    """Submit four jobs, do three restarts one after another, and then let the jobs end."""
    build_file = live_airflow.root / "built"
    blocker = live_airflow.submit("blocker", place="full-again")
    until(lambda: blocker.state is JobState.RUNNING, "the blocking job runs")
    jobs = {
        "queued": live_airflow.submit("restart-queued", place="full-again"),
        "preparing": live_airflow.submit(
            "restart-preparing", package=live_airflow.put(idle_trainer(str(build_file), "3.0"))
        ),
        "running": live_airflow.submit("restart-running", workers=1),
        "failing": live_airflow.submit("restart-failing"),
    }
    states = {"queued": JobState.QUEUED, "preparing": JobState.PREPARING}
    for name, job in jobs.items():
        until(lambda job=job, name=name: job.state is states.get(name, JobState.RUNNING), f"{name} has its state")  # type: ignore[misc]
        job.wait_in("wait_plain")
    for name, job in jobs.items():
        until(job.watched, f"a task waits for {name}: {job.task}")
    changed: list[str] = []
    for restart in (_stop_triggerer_and_kill_scheduler, _kill_stalled_triggerer, _kill_everything):
        restart(live_airflow)
        before = jobs["running"].logged()
        until(lambda before=before: jobs["running"].logged() > before, f"the wait logs again after {restart.__name__}")  # type: ignore[misc]
        wrong = {name: job.state for name, job in jobs.items() if job.state is not states.get(name, JobState.RUNNING)}
        changed += [f"{restart.__name__}: {wrong}"] if wrong else []
    build_file.touch()
    until(lambda: jobs["preparing"].state is JobState.RUNNING, "the environment is built")
    blocker.end()
    until(lambda: jobs["running"].logged("progress | ") >= 2, "progress is logged")
    until(lambda: jobs["queued"].state is JobState.RUNNING, "the queued job runs")
    for name, job in jobs.items():
        job.end(3 if name == "failing" else 0)
    for name, job in jobs.items():
        until(lambda job=job: job.task.state in {"success", "failed"}, f"the wait for {name} ends")  # type: ignore[misc]
    return Outcome(
        {name: (job.task.state, job.task.try_number) for name, job in jobs.items()},
        {name: tuple(status.state for status in job.attempts) for name, job in jobs.items()},
        jobs["running"].log(),
        jobs["failing"].log(),
        changed,
    )


def _stop_triggerer_and_kill_scheduler(live_airflow: LiveAirflow) -> None:
    live_airflow.airflow.stop_component("triggerer")
    live_airflow.airflow.stop_component("scheduler", kill=True)
    _start(live_airflow, "triggerer", "scheduler")


def _kill_stalled_triggerer(live_airflow: LiveAirflow) -> None:
    """The process that writes the logs stalls before it is killed, as if its database had not responded.

    Meanwhile the triggers go on. They save a cursor every 15 seconds; the next one after the stall began would cover
    lines that this process has not read.
    """
    handle = next(job.handle for job in live_airflow.jobs if job.name == "restart-running")
    before = read_cursor(live_airflow.storage, handle)
    until(lambda: read_cursor(live_airflow.storage, handle) != before, "a cursor is saved")
    time.sleep(FLUSH_SECONDS - 2.0)
    live_airflow.suspend("triggerer")
    time.sleep(FLUSH_SECONDS + 5.0)
    live_airflow.airflow.stop_component("triggerer", kill=True)
    _start(live_airflow, "triggerer")


def _kill_everything(live_airflow: LiveAirflow) -> None:
    for name in list(live_airflow.airflow.processes):
        live_airflow.airflow.stop_component(name, kill=True)
    _start(live_airflow, *airflow.COMPONENTS)


def _start(live_airflow: LiveAirflow, *names: str) -> None:
    began = datetime.now(UTC)
    for name in names:
        live_airflow.airflow.start_component(name)
    airflow.wait_until_healthy(live_airflow.airflow, since=began)


def test_restarts_do_not_change_the_states_of_jobs(outcome: Outcome) -> None:
    assert outcome.changed == []
    done = (JobState.SUCCEEDED,)
    assert outcome.attempts == {"queued": done, "preparing": done, "running": done, "failing": (JobState.FAILED,)}


def test_every_wait_resumes_and_finishes(outcome: Outcome) -> None:
    success = ("success", 1)
    assert outcome.tasks == {"queued": success, "preparing": success, "running": success, "failing": ("failed", 1)}


@pytest.mark.parametrize("replica", ["chief-0", "worker-0"])
def test_log_lines_are_complete_and_repeat_only_after_a_kill(outcome: Outcome, replica: str) -> None:
    text = "\n".join(outcome.log)
    resumptions = text.count(RESUMED)
    assert resumptions <= 2, "the triggerer was killed only twice"
    (written,) = {int(number) for number in re.findall(rf"{replica} said (\d+) lines", text)}
    logged = [int(number) for number in re.findall(rf"{replica} \| {replica} line (\d+)", text)]
    assert sorted(set(logged)) == list(range(written)), "log lines are missing"
    again = [at for at in range(1, len(logged)) if logged[at] <= logged[at - 1]]
    assert len(again) <= resumptions, f"more repetitions than resumptions: {[logged[at] for at in again]}"


def test_progress_is_logged_at_intervals(outcome: Outcome) -> None:
    steps = [int(step) for step in re.findall(r"progress \| step (\d+) of 1,000", "\n".join(outcome.log))]
    assert len(steps) >= 2
    assert steps == sorted(set(steps))
    lines = [line for line in outcome.log if "progress |" in line]
    assert "12,346 examples/s" in lines[0]
    assert "1 min 01 s to go" in lines[0]


def test_the_log_of_a_failed_job_has_the_cause_and_a_hint(outcome: Outcome) -> None:
    text = "\n".join(outcome.failed_log)
    for words in ("FAILED", "chief-0", "exit code 3", "ends with 3", "What to do:"):
        assert words in text, text
