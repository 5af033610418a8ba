"""The supervisor's decisions, with scripted replicas. test_ray_backend.py uses real ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest

from mlengine.backends import Submission
from mlengine.backends.local.outcome import Outcome
from mlengine.backends.ray import group as module
from mlengine.backends.ray.cluster import Cluster
from mlengine.backends.ray.group import Group
from mlengine.backends.ray.journal import Journal
from mlengine.backends.ray.record import Stored
from mlengine.backends.ray.settings import RaySettings
from mlengine.backends.ray.supervisor import Supervisor
from mlengine.core.job import FailureCause, JobState
from mlengine.core.spec import Pool, Role, TrainingSpec
from tests.support import scripted_actors
from tests.support.scripted_actors import LOST, RUNS, ScriptedCluster


class Notes:
    """The journal, in memory."""

    def __init__(self) -> None:
        self.states: list[tuple[JobState, str]] = []
        self.lines: list[tuple[str, str]] = []

    def state(self, state: JobState, detail: str, **_: Any) -> None:
        self.states.append((state, detail))

    def line(self, replica: str, text: str) -> None:
        self.lines.append((replica, text))

    def say(self, text: str) -> None:
        self.lines.append(("launcher", text))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DRAIN_SECONDS", 0.0)
    monkeypatch.setattr(module, "DRIVER_TIMEOUT_SECONDS", 0.0)
    monkeypatch.setattr(module, "_MARGIN_SECONDS", 0.0)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)


AT_ONCE = {"restart_backoff_seconds": 0, "linger_seconds": 0, "termination_grace_seconds": 0}
POOLS = (Pool(Role.CHIEF, 1), Pool(Role.WORKER, 2), Pool(Role.PS, 1))


@dataclass
class Job:
    """One run of the supervisor, and its results."""

    cluster: ScriptedCluster
    outcome: Outcome
    notes: Notes
    packages: list[str]

    @property
    def starts(self) -> list[str]:
        return [name for name, method, *_ in self.cluster.calls if method == "start"]


def run(
    pools: Sequence[Pool] = POOLS,
    end_requested: Callable[[ScriptedCluster], Outcome | None] = lambda _: None,
    *,
    free: int = 0,
    environments: dict[str, dict[str, Any]] | None = None,
    settings: dict[str, Any] | None = None,
    moves: bool = False,
    **scripts: list[Any],
) -> Job:
    """Run a job. ``worker_1=[137, 0]`` gives the results of that replica's starts, in order."""
    cluster = ScriptedCluster(
        {name.replace("_", "-"): script for name, script in scripts.items()}, free, environments or {}, moves=moves
    )
    chosen = RaySettings.load(**{**AT_ONCE, **(settings or {})})
    spec = TrainingSpec("t", ("gs://b/t.tar.gz",), pools=tuple(pools))
    notes, packages = Notes(), list[str]()
    group = Group(
        Stored(Submission("k", "job", 1, "gs://b/m/job", spec), chosen),
        cast(Cluster, cluster),
        cast(Journal, notes),
        lambda: end_requested(cluster),
        lambda _: None,
    )
    outcome = Supervisor(group, lambda: None, packages.extend).run()
    assert sorted(cluster.created) == sorted(cluster.killed), "every actor must be killed"
    assert cluster.released
    return Job(cluster, outcome, notes, packages)


def test_the_job_ends_with_its_chief() -> None:
    job = run(chief_0=[0])
    assert job.outcome.state is JobState.SUCCEEDED
    assert job.starts == ["ps-0", "worker-0", "worker-1", "chief-0"]
    assert job.cluster.addresses == {
        "chief": ["10.0.0.1:1"],
        "worker": ["node-of-worker-0:1", "node-of-worker-1:1"],
        "ps": ["10.0.0.1:1"],
    }
    assert {name for name, method, *_ in job.cluster.calls if method == "end"} == {"ps-0", "worker-0", "worker-1"}
    assert ("worker-1", "worker-1 says 143") in job.notes.lines
    assert job.packages == ["a==1"]


def test_the_environment_is_built_once_on_each_node() -> None:
    job = run(chief_0=[0])
    assert len([name for name, method, *_ in job.cluster.calls if method == "prepare"]) == 3


def test_a_worker_is_restarted_up_to_its_limit() -> None:
    job = run(worker_1=[1, 1, RUNS], chief_0=[RUNS], end_requested=after_starts("worker-1", 3))
    assert job.outcome.state is JobState.CANCELLED
    assert job.cluster.created.count("worker-1") == 1
    failed = run(worker_1=[1], settings={"max_restarts": 2})
    assert failed.outcome.failure is not None
    assert failed.outcome.failure.replica == "worker-1"
    assert failed.outcome.failure.exit_code == 1
    assert "after 2 restarts" in failed.outcome.failure.message
    assert failed.outcome.failure.log_tail == ("worker-1 says 1",) * 3
    assert failed.starts.count("worker-1") == 3


@pytest.mark.parametrize(("code", "starts", "cause"), [(1, 1, FailureCause.TRAINER), (137, 4, FailureCause.PREEMPTED)])
def test_a_chief_is_restarted_only_after_signals(code: int, starts: int, cause: FailureCause) -> None:
    job = run(chief_0=[code])
    assert job.outcome.failure is not None
    assert job.outcome.failure.cause is cause
    assert job.starts.count("chief-0") == starts


def test_a_failed_evaluator_does_not_fail_the_job() -> None:
    pools = (Pool(Role.CHIEF, 1), Pool(Role.EVALUATOR, 1))
    job = run(pools, chief_0=[75, 75, 0], evaluator_0=[1], settings={"max_restarts": 0})
    assert job.outcome.state is JobState.SUCCEEDED
    assert job.starts.count("evaluator-0") == 1


def test_a_lost_replica_restarts_all_on_new_actors() -> None:
    job = run(worker_0=[LOST, RUNS], chief_0=[RUNS, 0])
    assert job.outcome.state is JobState.SUCCEEDED
    assert job.cluster.created.count("chief-0") == 2
    assert [state for state, _ in job.notes.states].count(JobState.PREPARING) >= 2


@pytest.mark.parametrize("moves", [False, True])
def test_a_replica_starts_on_another_node_if_the_first_is_full(moves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRIVER_TIMEOUT_SECONDS", 0.3)
    began = time.monotonic()
    job = run(worker_0=[LOST, RUNS], chief_0=[RUNS, 0], moves=moves)
    assert job.outcome.state is JobState.SUCCEEDED
    assert (time.monotonic() - began > 0.3) is moves
    assert any("until the replicas on lost nodes have ended" in text for _, text in job.notes.lines) is moves


def test_too_many_lost_replicas_make_a_lost_job() -> None:
    job = run(worker_0=[LOST], settings={"max_cluster_restarts": 2})
    assert job.outcome.failure is not None
    assert job.outcome.failure.cause is FailureCause.LOST
    assert "lost 3 times" in job.outcome.detail
    assert job.cluster.created.count("worker-0") == 3


@pytest.mark.parametrize(("worker", "chief", "waits"), [([LOST], [RUNS], True), ([RUNS], [1], False)])
def test_a_job_has_no_outcome_while_an_unreachable_replica_may_run(
    worker: list[Any], chief: list[Any], waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt starts as soon as the job has an outcome, so no replica may still be running then."""
    monkeypatch.setattr(module, "DRIVER_TIMEOUT_SECONDS", 0.3)
    began = time.monotonic()
    job = run(settings={"max_cluster_restarts": 0}, worker_0=worker, chief_0=chief)
    assert job.outcome.failure is not None
    assert (time.monotonic() - began > 0.3) is waits


def test_a_successful_chief_outweighs_a_worker_lost_at_the_same_time() -> None:
    job = run(worker_0=[LOST], chief_0=[0])
    assert job.outcome.state is JobState.SUCCEEDED
    assert job.cluster.created.count("worker-0") == 1


def test_a_successful_chief_outweighs_a_worker_failed_at_the_same_time() -> None:
    job = run(worker_0=[1], chief_0=[0], settings={"max_restarts": 0})
    assert job.outcome.state is JobState.SUCCEEDED


def test_a_job_waits_for_its_placement_group() -> None:
    job = run(free=3, chief_0=[0])
    assert (JobState.QUEUED, "no node is free") in job.notes.states
    assert job.outcome.state is JobState.SUCCEEDED


def test_a_job_that_is_cancelled_in_the_queue_starts_nothing() -> None:
    job = run(free=10**9, end_requested=lambda _: Outcome.cancelled())
    assert job.outcome.state is JobState.CANCELLED
    assert job.cluster.created == []


def test_a_cancelled_job_ends_its_replicas() -> None:
    job = run(end_requested=after_starts("chief-0", 1))
    assert job.outcome.state is JobState.CANCELLED
    assert job.notes.states[-1][0] is JobState.CANCELLING
    assert {name for name, method, *_ in job.cluster.calls if method == "end"} >= set(job.starts)


@pytest.mark.parametrize(
    ("result", "cause"),
    [
        ({"error": "no such package", "retryable": False}, FailureCause.TRAINER),
        ({"error": "no answer", "retryable": True}, FailureCause.SERVICE),
        ({}, FailureCause.SERVICE),
        ({"digest": "d", "packages": [], "python": "3.12"}, FailureCause.SERVICE),
    ],
)
def test_an_environment_that_cannot_be_built_fails_the_job(result: dict[str, Any], cause: FailureCause) -> None:
    job = run(environments={"node-of-worker-1": result})
    assert job.outcome.failure is not None
    assert job.outcome.failure.cause is cause
    assert "node-of-worker-1" in job.outcome.detail
    assert job.starts == []


def after_starts(name: str, count: int) -> Callable[[ScriptedCluster], Outcome | None]:
    """Stop conditions that cancel the job once a replica has been started ``count`` times."""

    def end_requested(cluster: ScriptedCluster) -> Outcome | None:
        starts = [method for replica, method, *_ in cluster.calls if replica == name and method == "start"]
        return Outcome.cancelled() if len(starts) >= count else None

    return end_requested


@pytest.mark.parametrize("code", [0, 1])
def test_output_received_with_the_chiefs_end_is_logged(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """An actor returns its output only once, and the job ends with the chief's response in the same round."""
    last = {"worker-0": b"the last line\n"}
    poll = scripted_actors.Actor.do_poll

    def do_poll(actor: scripted_actors.Actor) -> dict[str, Any]:
        answer = poll(actor)
        return answer if answer["exit_code"] is not None else {**answer, "output": last.pop(actor.name, b"")}

    monkeypatch.setattr(scripted_actors.Actor, "do_poll", do_poll)
    assert ("worker-0", "the last line") in run(chief_0=[code]).notes.lines
