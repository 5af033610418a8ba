"""Tests that at most one job is submitted to Vertex AI despite crashes at every call, outages, and races.

The service's jobs are in memory; the tests count them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlengine.backends import Submission
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.backends.vertex.client import RestClient
from mlengine.backends.vertex.location import anonymous_credentials
from mlengine.core.errors import BackendUnavailableError
from mlengine.core.job import Decision, FailureCause, JobHandle, JobKey, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import TrainingSpec
from mlengine.emulator.faults import Fault
from mlengine.jobs.submission import Intent, Submitter
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend, MemoryJob
from mlengine.testing.emulator import RunningEmulator, running
from tests.integration.test_submission import Crashed, CrashingStep
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration

WRITES = {"create", "replace", "write"}
CALLS = {"call", "create"}


@pytest.fixture
def cloud() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture(autouse=True)
def package(storage: Storage, bucket: str) -> None:
    local.put(storage, bucket, local.sdist(""), "t-1.0.tar.gz")


@pytest.fixture
def service(cloud: MemoryBackend, storage: Storage, tmp_path: Path) -> Iterator[RunningEmulator]:
    with running(tmp_path / "emulator", backend=cloud, storage=storage) as started:
        yield started


def quick() -> RestClient:
    return RestClient(anonymous_credentials(), deadline=5, quota_patience=30, sleep=lambda _: time.sleep(0.001))


def vertex(service: RunningEmulator, client: Any = None, **options: Any) -> VertexBackend:
    return VertexBackend(**service.settings, client=client or quick(), **options)


def intent_for(bucket: str, run_id: str) -> Intent:
    spec = TrainingSpec("t.task", (f"{bucket}/packages/t-1.0.tar.gz",))
    return Intent(JobKey("dag", run_id, "submit"), "mnist", JobDir(f"{bucket}/mnist/{run_id}"), spec)


def paid(service: RunningEmulator, cloud: MemoryBackend, run_id: str) -> list[MemoryJob]:
    """The jobs of a run, once the emulator has submitted all that it accepted."""
    engine = service.server.engine
    engine.refresh(engine.store.all())
    return [job for job in cloud.live if job.handle.job_dir.endswith(run_id)]


def test_a_crash_at_any_call_leaves_one_job(
    service: RunningEmulator, cloud: MemoryBackend, storage: Storage, bucket: str
) -> None:
    crashes = 0
    for number in range(1, 100):
        run_id, countdown = f"run_{number}", [number]
        clients = CrashingStep(storage, WRITES, countdown), CrashingStep(quick(), CALLS, countdown)
        try:
            Submitter(clients[0], vertex(service, clients[1])).submit(intent_for(bucket, run_id))  # type: ignore[arg-type]
            break
        except Crashed:
            crashes += 1
        submitted = Submitter(storage, vertex(service)).submit(intent_for(bucket, run_id))
        assert submitted.decision in {Decision.FRESH_SUBMIT, Decision.REATTACHED}
        assert len(paid(service, cloud, run_id)) == 1, f"crash at side effect {number}"
    assert crashes >= 8, "no crash occurred"


def test_racing_submissions_leave_one_job(
    service: RunningEmulator, cloud: MemoryBackend, storage: Storage, bucket: str
) -> None:
    def submit(_: int) -> str:
        return Submitter(storage, vertex(service)).submit(intent_for(bucket, "race")).handle.name

    with ThreadPoolExecutor(4) as pool:
        names = set(pool.map(submit, range(4)))
    assert len(paid(service, cloud, "race")) == 1
    assert len(names) == 1


FAULTS = st.lists(
    st.builds(
        Fault,
        method=st.sampled_from(["CreateCustomJob", "ListCustomJobs", "GetCustomJob", "CancelCustomJob"]),
        action=st.sampled_from(["status", "reset", "lose", "cut"]),
        times=st.integers(1, 3),
        skip=st.integers(0, 2),
        status=st.sampled_from(["UNAVAILABLE", "INTERNAL", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"]),
        bytes=st.integers(0, 40),
    ),
    max_size=4,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(faults=FAULTS, regions=st.sampled_from([[], ["europe-west4"], ["europe-west4", "asia-east1"]]))
def test_faults_never_cause_a_second_job(
    service: RunningEmulator,
    cloud: MemoryBackend,
    storage: Storage,
    bucket: str,
    faults: list[Fault],
    regions: list[str],
) -> None:
    run_id = uuid.uuid4().hex
    service.server.script.clear()
    service.server.script.add(*faults)
    fallbacks = [{"region": region} for region in regions]
    for _ in range(10):
        try:
            submitted = Submitter(storage, vertex(service, fallbacks=fallbacks)).submit(intent_for(bucket, run_id))
            break
        except BackendUnavailableError:
            continue
    else:
        raise AssertionError("never submitted")
    service.server.script.clear()
    assert len(paid(service, cloud, run_id)) == 1
    assert vertex(service).describe([submitted.handle])[0].state is JobState.QUEUED


def test_a_preempted_attempt_is_followed_by_another(
    service: RunningEmulator, cloud: MemoryBackend, storage: Storage, bucket: str
) -> None:
    backend = vertex(service)
    submitter = Submitter(storage, backend, max_attempts=2)
    first = submitter.submit(intent_for(bucket, "again"))
    cloud.end(paid(service, cloud, "again")[0].handle.name, JobState.FAILED, FailureCause.PREEMPTED)
    second = submitter.submit(intent_for(bucket, "again"))
    assert second.decision is Decision.RESTARTED_FROM_CHECKPOINT
    assert (second.handle.attempt, second.handle.job_dir) == (2, first.handle.job_dir)
    assert [job.submission.attempt for job in paid(service, cloud, "again")] == [2]


def test_hundreds_of_jobs_are_polled_with_one_request(service: RunningEmulator, bucket: str) -> None:
    backend, spec = vertex(service), intent_for(bucket, "x").spec

    def submit(number: int) -> JobHandle:
        return backend.submit(Submission(f"{number:040x}", f"j{number}", 1, f"{bucket}/m/j{number}", spec))

    with ThreadPoolExecutor(4) as pool:
        handles = list(pool.map(submit, range(200)))
    calls = len(service.calls)
    assert [status.handle for status in backend.describe(handles)] == handles
    assert service.calls[calls:] == ["ListCustomJobs"]
    wanted: list[tuple[JobHandle, dict[str, Any]]] = [(handle, {}) for handle in handles]
    assert len(backend.logs_many(wanted)) == len(handles)
    assert service.calls[calls + 1 :] == ["ListLogEntries", "ListLogEntries"]
