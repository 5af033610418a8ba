"""Tests that at most one job is submitted despite crashes, lost responses, races, clears and retries."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlengine.backends import TrainingBackend
from mlengine.core import layout
from mlengine.core.errors import BackendUnavailableError, JobFailedError, JobLostError, MlengineError, StorageError
from mlengine.core.job import Decision, FailureCause, JobHandle, JobKey, JobState, JobStatus, make_job_id
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.jobs.submission import Intent, Submitter
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from tests.support import local_jobs
from tests.support.scripted_backends import ScriptedBackend, fresh

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def package(storage: Storage, bucket: str) -> None:
    """The package that the jobs here install; a backend may require it before it accepts a job."""
    storage.write(f"{bucket}/t.tar.gz", local_jobs.sdist(""))


class Crashed(BaseException):
    """Simulates SIGKILL: the product must not catch it."""


class CrashingStep:
    """A client that simulates the end of the process right before or after its n-th side effect."""

    def __init__(self, client: Any, effects: set[str], countdown: list[int]) -> None:
        self._client, self._effects, self._countdown = client, effects, countdown

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if name not in self._effects:
            return attribute

        def step(*args: Any, **kwargs: Any) -> Any:
            self._count()
            result = attribute(*args, **kwargs)
            self._count()
            return result

        return step

    def _count(self) -> None:
        self._countdown[0] -= 1
        if self._countdown[0] == 0:
            raise Crashed


def intent_for(bucket: str, generation: int = 0, run_id: str = "r1", uid: str = "") -> Intent:
    """The intent of the task in one lifetime of a run.

    Its arguments differ each time the run is created again (``uid``).
    """
    key = JobKey("dag", run_id, "submit", -1, generation, uid)
    base = JobKey("dag", run_id, "prepare", -1, 0)
    job_dir = JobDir.of(bucket, "mnist", make_job_id("mnist", "2026-11-01", base))
    spec = TrainingSpec("trainer.task", (f"{bucket}/t.tar.gz",), ("--run", uid))
    return Intent(key, "mnist", job_dir, spec, installation="this", own_dir=True)


def test_a_retry_reattaches_to_a_running_or_a_finished_job(
    storage: Storage, bucket: str, scripted_backend: ScriptedBackend
) -> None:
    submitter, intent = Submitter(storage, scripted_backend), intent_for(bucket)
    first = submitter.submit(intent)
    assert first.decision is Decision.FRESH_SUBMIT
    assert submitter.submit(intent) == replace(first, decision=Decision.REATTACHED)
    scripted_backend.end(first.handle.name, JobState.SUCCEEDED)
    assert submitter.submit(intent) == replace(first, decision=Decision.ALREADY_SUCCEEDED)
    assert len(scripted_backend.jobs) == 1


@pytest.mark.parametrize("name", sorted(layout.NO_JOBS))
def test_a_reserved_job_dir_name_is_refused(
    storage: Storage, bucket: str, scripted_backend: ScriptedBackend, name: str
) -> None:
    intent = replace(intent_for(bucket), job_dir=JobDir.of(bucket, "mnist", name))
    with pytest.raises(StorageError, match=f"a job dir cannot be called {name}"):
        Submitter(storage, scripted_backend).submit(intent)
    assert storage.ls(intent.job_dir.uri) == []
    assert not scripted_backend.jobs


def test_a_stale_submission_does_not_overwrite_the_claim_of_a_later_attempt(
    storage: Storage, bucket: str, scripted_backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow try has submitted attempt 1 and stalls before recording it, while another submission makes attempt 2."""
    submitter, intent = Submitter(storage, scripted_backend), intent_for(bucket)
    original = submitter._record
    later: list[JobHandle] = []

    def late(job_dir: JobDir, handle: JobHandle, decision: Decision) -> Any:
        other = Submitter(storage, scripted_backend)
        other.submit(intent)
        scripted_backend.end(handle.name, JobState.FAILED, FailureCause.PREEMPTED)

        def slow(*_: Any) -> None:
            later.append(scripted_backend.live[0].handle)
            raise Crashed

        with monkeypatch.context() as patch, suppress(Crashed):
            patch.setattr(other, "_record", slow)
            other.submit(intent)
        return original(job_dir, handle, decision)

    with monkeypatch.context() as patch:
        patch.setattr(submitter, "_record", late)
        with pytest.raises(JobLostError, match="claimed again"):
            submitter.submit(intent)
    assert [handle.attempt for handle in later] == [2]
    record = submitter.record(JobDir(later[0].job_dir))
    assert (record.attempt, record.name) == (2, None)
    assert submitter.submit(intent).handle == later[0]
    assert [job.handle for job in scripted_backend.live] == later


def test_a_cleared_task_trains_again_and_cancels_its_old_job(
    storage: Storage, bucket: str, scripted_backend: ScriptedBackend
) -> None:
    submitter = Submitter(storage, scripted_backend)
    old = submitter.submit(intent_for(bucket))
    new = submitter.submit(intent_for(bucket, generation=2))
    assert new.decision is Decision.FRESH_SUBMIT
    assert new.handle.job_dir != old.handle.job_dir
    assert [job.handle for job in scripted_backend.live] == [new.handle]
    again = submitter.submit(intent_for(bucket, generation=2))
    assert again.decision is Decision.REATTACHED
    assert again.handle == new.handle


def test_a_job_of_another_dag_in_the_same_dir_is_left_alone(
    storage: Storage, bucket: str, scripted_backend: ScriptedBackend
) -> None:
    submitter, intent = Submitter(storage, scripted_backend), intent_for(bucket)
    theirs = submitter.submit(replace(intent, key=replace(intent.key, dag_id="somebody_elses")))
    ours = submitter.submit(intent)
    assert ours.handle.job_dir != theirs.handle.job_dir
    assert len(scripted_backend.live) == 2


def test_a_retry_finds_the_job_of_a_lost_response(
    storage: Storage, bucket: str, scripted_backend: ScriptedBackend
) -> None:
    scripted_backend.lose_answers = 1
    submitter, intent = Submitter(storage, scripted_backend), intent_for(bucket)
    with pytest.raises(BackendUnavailableError):
        submitter.submit(intent)
    assert submitter.submit(intent).decision is Decision.REATTACHED
    assert len(scripted_backend.jobs) == 1


def test_a_duplicate_caused_by_a_stale_list_is_cancelled(storage: Storage, bucket: str) -> None:
    backend = MemoryBackend(lose_answers=1, lag=True)
    submitter, intent = Submitter(storage, backend), intent_for(bucket)
    with pytest.raises(BackendUnavailableError):
        submitter.submit(intent)
    original = backend.submit

    def submit_and_catch_up(*args: Any) -> Any:
        handle = original(*args)
        backend.catch_up()
        return handle

    backend.submit = submit_and_catch_up  # type: ignore[method-assign,assignment]
    submitted = submitter.submit(intent)
    assert submitted.decision is Decision.DUPLICATE_CANCELLED
    assert [job.handle for job in backend.live] == [submitted.handle]
    assert submitted.handle.name == "job-1", "the older job must be kept"


@pytest.mark.parametrize("cause", [cause for cause in FailureCause if cause.retryable])
def test_machine_failures_are_retried_within_max_attempts(
    storage: Storage, bucket: str, scripted_backend: ScriptedBackend, cause: FailureCause
) -> None:
    submitter, intent = Submitter(storage, scripted_backend, max_attempts=2), intent_for(bucket)
    first = submitter.submit(intent)
    scripted_backend.end(first.handle.name, JobState.FAILED, cause)
    second = submitter.submit(intent)
    assert second.decision is Decision.RESTARTED_FROM_CHECKPOINT
    assert (second.handle.attempt, second.handle.job_dir) == (2, first.handle.job_dir)
    scripted_backend.end(second.handle.name, JobState.FAILED, cause)
    with pytest.raises(JobLostError, match="attempt 2 of 2"):
        submitter.submit(intent)


@pytest.mark.parametrize(("limits", "attempts"), [(False, 1), (True, 2)])
def test_restarts_count_as_attempts_unless_the_backend_limits_them(
    storage: Storage, bucket: str, scripted_backend: ScriptedBackend, limits: bool, attempts: int
) -> None:
    if limits:
        setattr(scripted_backend, "limits_restarts", True)  # noqa: B010 - no attribute of the class
    submitter, intent = Submitter(storage, scripted_backend, max_attempts=2), intent_for(bucket)
    handle = submitter.submit(intent).handle
    for restarting in (True, False):
        submitter.note_restart(JobStatus(handle, JobState.RUNNING, restarting=restarting))
    scripted_backend.end(handle.name, JobState.FAILED, FailureCause.LOST)
    with suppress(JobLostError):
        submitter.submit(intent)
    assert len(scripted_backend.jobs) == attempts


def test_a_trainer_error_is_not_retried(storage: Storage, bucket: str, scripted_backend: ScriptedBackend) -> None:
    submitter, intent = Submitter(storage, scripted_backend), intent_for(bucket)
    first = submitter.submit(intent)
    scripted_backend.end(first.handle.name, JobState.FAILED, FailureCause.TRAINER)
    with pytest.raises(JobFailedError, match="ended by trainer"):
        submitter.submit(intent)
    assert len(scripted_backend.jobs) == 1


def test_concurrent_submissions_start_one_job(storage: Storage, bucket: str, scripted_backend: ScriptedBackend) -> None:
    intent = intent_for(bucket)

    def submit(_: int) -> str:
        return Submitter(storage, scripted_backend).submit(intent).handle.name

    with ThreadPoolExecutor(6) as pool:
        names = list(pool.map(submit, range(6)))
    assert len(scripted_backend.live) == 1
    assert scripted_backend.live[0].handle.name == Submitter(storage, scripted_backend).submit(intent).handle.name
    assert names.count(scripted_backend.live[0].handle.name) >= 1


def test_a_crash_at_any_step_leaves_one_job(storage: Storage, bucket: str) -> None:
    """Crashes at each side effect of steps 1 to 6 of docs/architecture.md, and then retries."""
    steps = 0
    for steps in range(1, 100):
        backend, intent = MemoryBackend(), intent_for(bucket, run_id=f"crash-{steps}")
        countdown = [steps]
        clients: Any = (
            CrashingStep(storage, {"create", "replace", "write", "delete"}, countdown),
            CrashingStep(backend, {"submit", "cancel"}, countdown),
        )
        crashing = Submitter(*clients)
        try:
            crashing.submit(intent)
        except Crashed:
            submitted = Submitter(storage, backend).submit(intent)
            assert len(backend.jobs) == 1, f"crash at effect {steps}"
            assert submitted.handle == backend.live[0].handle
        else:
            break
    assert steps > 8, "the crash points must cover dirs, claim, submit and record, before and after"


class TaskHistory(RuleBasedStateMachine):
    """Checks the guarantee under retries, clears, deletions, faults, crashes and endings in any order."""

    storage: ClassVar[Storage]
    bucket: ClassVar[str]
    scripted_backend: ClassVar[ScriptedBackend]

    def __init__(self) -> None:
        super().__init__()
        self.backend = fresh(self.scripted_backend)
        self.run = uuid.uuid4().hex
        self.generation = 0
        self.created = 0
        self.expected_args: dict[str, tuple[str, ...]] = {}

    def intent(self) -> Intent:
        return intent_for(self.bucket, self.generation, self.run, f"uid-{self.created}")

    def enter(self, storage: Any, backend: TrainingBackend) -> None:
        intent = self.intent()
        self.expected_args[intent.key.digest] = intent.spec.args
        with suppress(MlengineError, Crashed):
            Submitter(storage, backend).submit(intent)

    @rule()
    def the_task_runs(self) -> None:
        self.enter(self.storage, self.backend)

    @rule(steps=st.integers(1, 20))
    def the_task_is_killed_at(self, steps: int) -> None:
        countdown = [steps]
        self.enter(
            CrashingStep(self.storage, {"create", "replace", "write"}, countdown),
            CrashingStep(self.backend, {"submit", "cancel"}, countdown),
        )

    @rule(lose=st.booleans(), refuse=st.integers(0, 3))
    def the_task_runs_with_faults(self, lose: bool, refuse: int) -> None:
        self.backend.lose_answers, self.backend.refuse = int(lose), refuse
        self.enter(self.storage, self.backend)
        self.backend.lose_answers = self.backend.refuse = 0

    @rule()
    def the_task_is_cleared(self) -> None:
        self.generation += 2

    @rule()
    def the_run_is_deleted_and_created_again(self) -> None:
        self.created += 1
        self.generation = 0

    @precondition(lambda self: self.backend.live)
    @rule(cause=st.sampled_from([None, *FailureCause]))
    def the_job_ends(self, cause: FailureCause | None) -> None:
        state = JobState.SUCCEEDED if cause is None else JobState.FAILED
        self.backend.end(self.backend.live[0].handle.name, state, cause)

    @invariant()
    def one_live_job_per_key(self) -> None:
        keys = [job.submission.key for job in self.backend.live]
        assert len(keys) == len(set(keys))

    @invariant()
    def nothing_runs_after_success_of_its_key(self) -> None:
        done = {job.submission.key for job in self.backend.jobs if job.state is JobState.SUCCEEDED}
        assert not done & {job.submission.key for job in self.backend.live}

    @invariant()
    def each_job_has_the_arguments_of_its_run(self) -> None:
        for job in self.backend.jobs:
            assert job.submission.spec.args == self.expected_args[job.submission.key]

    def teardown(self) -> None:
        self.enter(self.storage, self.backend)
        current = self.intent().key.digest
        assert all(job.submission.key == current for job in self.backend.live), "earlier jobs must be cancelled"


def test_at_most_one_job_runs_in_any_order_of_events(
    storage: Storage, bucket: str, scripted_backend: ScriptedBackend
) -> None:
    TaskHistory.storage, TaskHistory.bucket, TaskHistory.scripted_backend = storage, bucket, scripted_backend
    case: Callable[..., Any] = TaskHistory.TestCase
    case.settings = settings(  # type: ignore[attr-defined]
        max_examples=60 if scripted_backend.name == "memory" else 15,
        stateful_step_count=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    case("runTest").runTest()


def test_mapped_tasks_have_separate_jobs(storage: Storage, bucket: str, scripted_backend: ScriptedBackend) -> None:
    """They were prepared as one task. Each finds its own dir, and none ends the other tasks' jobs."""
    one = intent_for(bucket)
    intents = [replace(one, key=replace(one.key, map_index=index)) for index in range(3)]
    first = [Submitter(storage, scripted_backend).submit(intent) for intent in intents]
    again = [Submitter(storage, scripted_backend).submit(intent) for intent in intents]
    assert len({submitted.handle.job_dir for submitted in first}) == 3
    assert [submitted.handle for submitted in again] == [submitted.handle for submitted in first]
    assert len(scripted_backend.live) == 3


class OnHost(MemoryBackend):
    """Sees only the jobs of its own host, as the local backend does."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.place = name

    def host(self) -> str:
        return self.place

    def elsewhere(self, handle: JobHandle) -> str | None:
        return None if any(job.handle == handle for job in self.jobs) else "another"

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        here = {
            status.handle: status for status in super().describe([one for one in handles if not self.elsewhere(one)])
        }
        return [here.get(handle, JobStatus(handle, JobState.UNKNOWN, "it runs on host a")) for handle in handles]


def test_a_second_host_does_not_start_a_job_that_may_run_on_the_first(storage: Storage, bucket: str) -> None:
    first, second = OnHost("a"), OnHost("b")
    intent = intent_for(bucket)
    first.lose_answers = 1
    with pytest.raises(BackendUnavailableError):
        Submitter(storage, first).submit(intent)
    assert len(first.live) == 1
    with pytest.raises(BackendUnavailableError, match="claimed on host a and may be running there; this host is b"):
        Submitter(storage, second).submit(intent)
    recorded = Submitter(storage, first).submit(intent)
    assert recorded.decision is Decision.REATTACHED
    # Once the job is recorded, any host can wait for it; only its own host acts on it.
    assert Submitter(storage, second).submit(intent).decision is Decision.REATTACHED
    assert (len(first.jobs), len(second.jobs)) == (1, 0)
