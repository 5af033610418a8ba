"""Tests fallbacks after a stockout with the emulator: each is used in order, and at most one job is live at any time.

The service's jobs are in memory. After every create, the test counts the job's live attempts in all regions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends import Submission
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.backends.vertex.client import RestClient
from mlengine.backends.vertex.location import anonymous_credentials
from mlengine.cli.jobs.reap import find_unnamed
from mlengine.core.errors import BackendUnavailableError, JobFailedError, JobLostError, NoCapacityError
from mlengine.core.job import Decision, FailureCause, JobKey, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.emulator.records import Record
from mlengine.jobs.submission import Intent, Submitter
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from mlengine.testing.emulator import RunningEmulator, running
from tests.integration.test_submission import Crashed, CrashingStep
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration

HOME, AWAY, FAR = "us-central1", "europe-west4", "asia-east1"
SPOT = {"strategy": "spot"}
T4 = {"machine_type": "n1-standard-8", "accelerator_type": "NVIDIA_TESLA_T4"}
ELSEWHERE = {"region": AWAY}
WORDS = (
    "The following quota metrics exceed quota limits: aiplatform.googleapis.com/custom_model_training_nvidia_l4_gpus"
)
WRITES = {"create", "replace", "write"}
CALLS = {"create"}  # lists only read: crashing before one is equivalent to crashing after the previous effect


class Cloud:
    """The emulator with jobs in memory, and the largest number of live jobs that any run had at once."""

    def __init__(self, service: RunningEmulator, memory: MemoryBackend, storage: Storage, bucket: str) -> None:
        self.service, self.memory, self.storage, self.bucket = service, memory, storage, bucket
        self.most: dict[str, int] = {}

    def client(self) -> RestClient:
        cloud = self

        class Counting(RestClient):
            def create(self, url: str, body: Any, *, patience: float | None = None) -> dict[str, Any] | None:
                answer = super().create(url, body, patience=patience)
                cloud.count(body["displayName"])
                return answer

        return Counting(anonymous_credentials(), deadline=5, quota_patience=0.0, sleep=lambda _: time.sleep(0.001))

    def backend(self, *fallbacks: dict[str, Any], client: Any = None, **more: Any) -> VertexBackend:
        settings = {**self.service.settings, **more}
        return VertexBackend(**settings, client=client or self.client(), fallbacks=list(fallbacks))

    def submitter(self, *fallbacks: dict[str, Any], max_attempts: int = 1, **more: Any) -> Submitter:
        return Submitter(self.storage, self.backend(*fallbacks, **more), max_attempts=max_attempts)

    def intent(self, run_id: str, **spec: Any) -> Intent:
        pools = (Pool(Role.CHIEF, 1, "g2-standard-8", "NVIDIA_L4", 1),)
        training = TrainingSpec("t.task", (f"{self.bucket}/packages/t-1.0.tar.gz",), pools=pools, **spec)
        return Intent(JobKey("dag", run_id, "submit"), "mnist", JobDir(f"{self.bucket}/mnist/{run_id}"), training)

    def records(self, run_id: str) -> list[Record]:
        """The service's jobs of a run, oldest first."""
        engine = self.service.server.engine
        found = [one for one in engine.refresh(engine.store.all()) if one.body["displayName"] == run_id]
        return sorted(found, key=lambda one: one.created)

    def live(self, run_id: str) -> list[Record]:
        return [one for one in self.records(run_id) if not one.state.terminal]

    def count(self, run_id: str) -> None:
        self.most[run_id] = max(self.most.get(run_id, 0), len(self.live(run_id)))

    def end(self, run_id: str, cause: FailureCause) -> None:
        self.records(run_id)  # makes the emulator submit what was created
        (job,) = [job for job in self.memory.live if job.handle.job_dir.endswith(f"/{run_id}")]
        self.memory.end(job.handle.name, JobState.FAILED, cause)

    def refuse(self, times: int = 1, *, skip: int = 0, message: str = WORDS) -> None:
        """Refuse the next creates for lack of quota."""
        more: dict[str, Any] = {"status": "RESOURCE_EXHAUSTED", "message": message, "times": times, "skip": skip}
        self.service.script("CreateCustomJob", "status", **more)


@pytest.fixture
def cloud(storage: Storage, bucket: str, tmp_path: Path) -> Iterator[Cloud]:
    local.put(storage, bucket, local.sdist(""), "t-1.0.tar.gz")
    memory = MemoryBackend()
    with running(tmp_path / "emulator", backend=memory, storage=storage) as service:
        yield Cloud(service, memory, storage, bucket)


def test_each_fallback_is_tried_in_turn_and_none_counts_as_an_attempt(cloud: Cloud) -> None:
    intent, submitter = cloud.intent("turn"), cloud.submitter(SPOT, T4, ELSEWHERE)
    assert submitter.submit(intent).decision is Decision.FRESH_SUBMIT
    for number in (2, 3, 4):
        cloud.end("turn", FailureCause.QUOTA)
        submitted = submitter.submit(intent)
        assert submitted.decision is Decision.RESTARTED_FROM_CHECKPOINT
        assert submitted.handle.attempt == number
    first, spot, other, away = cloud.records("turn")
    assert [one.region for one in (first, spot, other, away)] == [HOME, HOME, HOME, AWAY]
    assert spot.body["jobSpec"]["scheduling"]["strategy"] == "SPOT"
    assert "strategy" not in other.body["jobSpec"].get("scheduling", {})
    machines = [one.body["jobSpec"]["workerPoolSpecs"][0]["machineSpec"] for one in (first, spot, other, away)]
    assert [one["machineType"] for one in machines] == [
        "g2-standard-8",
        "g2-standard-8",
        "n1-standard-8",
        "g2-standard-8",
    ]
    assert machines[2]["acceleratorType"] == "NVIDIA_TESLA_T4"
    assert machines[3] == machines[0]
    # No fallback is left: the fourth attempt was the only one that counts towards max_attempts.
    cloud.end("turn", FailureCause.QUOTA)
    with pytest.raises(JobLostError, match="attempt 4 of 4"):
        submitter.submit(intent)
    assert cloud.most["turn"] == 1


def test_a_later_attempt_keeps_the_region_that_had_machines(cloud: Cloud) -> None:
    intent, submitter = cloud.intent("stay"), cloud.submitter(ELSEWHERE, SPOT, max_attempts=2)
    submitter.submit(intent)
    cloud.end("stay", FailureCause.QUOTA)
    submitter.submit(intent)
    cloud.end("stay", FailureCause.PREEMPTED)
    assert submitter.submit(intent).handle.attempt == 3
    assert [one.region for one in cloud.records("stay")] == [HOME, AWAY, AWAY]


def test_an_error_of_the_trainer_uses_no_fallback(cloud: Cloud) -> None:
    intent, submitter = cloud.intent("bug"), cloud.submitter(SPOT)
    submitter.submit(intent)
    cloud.end("bug", FailureCause.TRAINER)
    with pytest.raises(JobFailedError):
        submitter.submit(intent)
    assert len(cloud.records("bug")) == 1


def test_a_refused_create_takes_the_next_fallback_at_once(cloud: Cloud) -> None:
    cloud.refuse(2)
    submitted = cloud.submitter(SPOT, ELSEWHERE).submit(cloud.intent("quota"))
    assert (submitted.handle.attempt, submitted.decision) == (1, Decision.FRESH_SUBMIT)
    (made,) = cloud.records("quota")
    assert made.region == AWAY
    record = cloud.submitter().record(JobDir(submitted.handle.job_dir))
    assert [event["fallback"]["number"] for event in record.history if event["event"] == "fallback"] == [1, 2]
    assert all(WORDS in event["after"] for event in record.history if event["event"] == "fallback")


def test_without_a_fallback_the_refusal_is_raised_and_can_be_retried(cloud: Cloud) -> None:
    cloud.refuse(2)
    submitter, intent = cloud.submitter(ELSEWHERE), cloud.intent("none")
    with pytest.raises(NoCapacityError, match="custom_model_training_nvidia_l4_gpus"):
        submitter.submit(intent)
    submitter.submit(intent)
    assert [one.region for one in cloud.records("none")] == [AWAY]


def test_a_quota_with_limit_0_takes_the_next_fallback_too(cloud: Cloud) -> None:
    cloud.refuse(message="Quota custom_model_training_nvidia_l4_gpus exceeded. Limit: 0 in region us-central1.")
    cloud.submitter(ELSEWHERE).submit(cloud.intent("zero"))
    assert [one.region for one in cloud.records("zero")] == [AWAY]


def test_a_rate_limit_uses_no_fallback(cloud: Cloud) -> None:
    cloud.refuse(message="Quota exceeded for quota metric 'Job submissions' and limit 'Job submissions per minute'")
    with pytest.raises(BackendUnavailableError, match="per minute") as caught:
        cloud.submitter(ELSEWHERE).submit(cloud.intent("rate"))
    assert not isinstance(caught.value, NoCapacityError)
    cloud.submitter(ELSEWHERE).submit(cloud.intent("rate"))
    assert [one.region for one in cloud.records("rate")] == [HOME]


def test_after_a_create_without_a_response_no_fallback_is_tried(cloud: Cloud) -> None:
    """The created job may appear late: a job in another region could then be a second one."""
    cloud.service.script("CreateCustomJob", "lose")
    cloud.refuse(skip=1)
    cloud.service.script("ListCustomJobs", "lag", seconds=60, times=100)
    with pytest.raises(BackendUnavailableError) as caught:
        cloud.submitter(ELSEWHERE).submit(cloud.intent("lost"))
    assert not isinstance(caught.value, NoCapacityError)
    cloud.service.server.script.clear()
    assert cloud.submitter(ELSEWHERE).submit(cloud.intent("lost")).decision is Decision.REATTACHED
    assert [one.region for one in cloud.records("lost")] == [HOME]


def test_a_crash_at_any_call_after_a_stockout_leaves_one_job(cloud: Cloud) -> None:
    """Crashes before or after each side effect between attempt 1 and attempt 2."""
    crashes = 0
    for number in range(1, 100):
        run_id, countdown = f"ended_{number}", [number]
        intent = cloud.intent(run_id)
        cloud.submitter(ELSEWHERE).submit(intent)
        cloud.end(run_id, FailureCause.QUOTA)
        crashed = _crashes(cloud, intent, countdown, ELSEWHERE)
        assert len(cloud.live(run_id)) <= 1
        # The next process may have other options: the record determines the region.
        recorded = cloud.submitter().record(intent.job_dir).attempt == 2
        (cloud.submitter() if recorded else cloud.submitter(ELSEWHERE)).submit(intent)
        assert [one.region for one in cloud.live(run_id)] == [AWAY], f"crash at side effect {number}"
        assert len(cloud.records(run_id)) == 2
        assert cloud.most[run_id] == 1
        crashes += crashed
        if not crashed:
            break
    assert crashes >= 6, "no crash occurred"


def test_a_crash_at_any_call_while_creates_are_refused_leaves_one_job(cloud: Cloud) -> None:
    crashes = 0
    for number in range(1, 100):
        run_id, countdown = f"refused_{number}", [number]
        intent = cloud.intent(run_id)
        cloud.refuse(2)
        crashed = _crashes(cloud, intent, countdown, ELSEWHERE, {"region": FAR})
        assert len(cloud.live(run_id)) <= 1
        cloud.submitter(ELSEWHERE, {"region": FAR}).submit(intent)
        (left,) = cloud.records(run_id)
        # A process that crashes between a refusal and its record leads to another request in the same region.
        assert left.region in {AWAY, FAR}
        assert cloud.most[run_id] == 1
        assert not cloud.service.server.script.unused()
        crashes += crashed
        if not crashed:
            break
    assert crashes >= 10, "no crash occurred"


def _crashes(cloud: Cloud, intent: Intent, countdown: list[int], *fallbacks: dict[str, Any]) -> bool:
    """Whether a submission reached the side effect at which it crashes."""
    steps = CrashingStep(cloud.storage, WRITES, countdown), CrashingStep(cloud.client(), CALLS, countdown)
    try:
        Submitter(steps[0], cloud.backend(*fallbacks, client=steps[1]), max_attempts=1).submit(intent)  # type: ignore[arg-type]
    except Crashed:
        return True
    return False


def test_racing_submissions_leave_one_job(cloud: Cloud) -> None:
    intent = cloud.intent("race")
    cloud.submitter(ELSEWHERE).submit(intent)
    cloud.end("race", FailureCause.QUOTA)

    def submit(_: int) -> str:
        return cloud.submitter(ELSEWHERE).submit(intent).handle.name

    with ThreadPoolExecutor(4) as pool:
        names = set(pool.map(submit, range(4)))
    (left,) = cloud.live("race")
    assert left.region == AWAY
    assert len(names) == 1


def test_a_running_attempt_is_cancelled_before_the_next_starts(cloud: Cloud) -> None:
    intent, backend = cloud.intent("alive"), cloud.backend()
    first = Submitter(cloud.storage, backend).submit(intent).handle
    wanted = Submission(intent.key.digest, "alive", 2, first.job_dir, intent.spec, fallback={"number": 1, **ELSEWHERE})
    second = cloud.backend().submit(wanted)
    assert [one.region for one in cloud.live("alive")] == [AWAY]
    assert backend.describe([first])[0].state is JobState.CANCELLED
    assert cloud.backend().submit(replace(wanted)) == second


def test_earlier_jobs_are_found_in_the_regions_of_their_fallbacks(cloud: Cloud) -> None:
    """A cleared task ends its earlier job, which runs in a region that its options no longer name."""
    intent = cloud.intent("cleared")
    cloud.refuse()
    cloud.submitter(ELSEWHERE).submit(intent)
    again = Intent(
        JobKey("dag", "cleared", "submit", -1, 1), "mnist", intent.job_dir, intent.spec, earlier=(intent.key,)
    )
    submitted = cloud.submitter().submit(again)
    live = cloud.memory.live
    assert [job.handle.job_dir for job in live] == [submitted.handle.job_dir]


def test_a_job_whose_name_was_not_recorded_is_found_by_the_region_in_the_record(cloud: Cloud) -> None:
    """``jobs reap`` and a submission with other inputs search for it, with options that do not name its region."""
    intent = cloud.intent("unnamed")
    cloud.refuse()
    # The process crashes after the claim, the fallback, and the create.
    step = CrashingStep(cloud.client(), CALLS, [3])
    with pytest.raises(Crashed):
        Submitter(cloud.storage, cloud.backend(ELSEWHERE, client=step)).submit(intent)
    record = cloud.submitter().record(intent.job_dir)
    assert (record.name, record.regions) == (None, (AWAY,))
    (found,) = find_unnamed(cloud.backend(), record)
    assert f"/locations/{AWAY}/" in found.name
