"""Tests the backend contract with the vertex backend on the emulator, whose jobs are real processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends import LogLine, Submission, find_attempts
from mlengine.backends.local.backend import LocalBackend
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.backends.vertex.client import RestClient
from mlengine.backends.vertex.location import anonymous_credentials
from mlengine.core.errors import BackendError, BackendUnavailableError
from mlengine.core.job import FailureCause, JobHandle, JobState, JobStatus
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.emulator.projects import location_name
from mlengine.storage.client import Storage
from mlengine.testing.emulator import RunningEmulator, running
from tests.support import local_jobs

pytestmark = pytest.mark.integration
Make = Callable[..., LocalBackend]
KEY = "ab" * 20
LONG = "until('/nowhere')"


@pytest.fixture
def service(make_backend: Make, tmp_path: Path) -> Iterator[RunningEmulator]:
    with running(tmp_path / "emulator", backend=make_backend(max_chief_restarts=0, max_restarts=0)) as started:
        yield started


@pytest.fixture
def vertex(service: RunningEmulator) -> VertexBackend:
    """A backend with short retry delays, so that no test waits for a full second."""
    client = RestClient(anonymous_credentials(), deadline=20, quota_patience=20, sleep=lambda _: time.sleep(0.05))
    return VertexBackend(**service.settings, client=client)


def submission(uri: str, bucket: str, *args: str, key: str = KEY, **more: Any) -> Submission:
    pools = more.pop("pools", (Pool(Role.CHIEF, 1, "n1-standard-4"),))
    spec = TrainingSpec("tiny.task", (uri,), args, pools=pools)
    return Submission(key, "mnist_1", more.pop("attempt", 1), f"{bucket}/mnist/mnist_1", spec, **more)


def wait(vertex: VertexBackend, handle: JobHandle, *states: JobState) -> JobStatus:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        status = vertex.describe([handle])[0]
        if status.state in states or (status.state.terminal and not states):
            return status
        assert not status.state.terminal, status
        time.sleep(0.1)
    raise AssertionError(f"{handle.name} is still {status.state}: {status.detail}")


def all_lines(vertex: VertexBackend, handle: JobHandle) -> list[LogLine]:
    lines: list[LogLine] = []
    cursor: dict[str, Any] = {}
    while True:
        page = vertex.logs(handle, cursor, limit=7)
        lines += page.lines
        cursor = dict(page.cursor)
        if not page.lines:
            return lines


CLUSTER = (
    Pool(Role.CHIEF, 1, "n1-standard-4"),
    Pool(Role.WORKER, 2, "n1-standard-4"),
    Pool(Role.PS, 1, "n1-standard-4"),
)
SHOW = "say('TF', sorted(config['cluster']), args.job_dir, os.environ['AIP_MODEL_DIR'], os.environ['MLENGINE_ATTEMPT'])"


def test_a_cluster_trains_and_its_state_and_logs_are_read(vertex: VertexBackend, actor: str, bucket: str) -> None:
    asked = submission(actor, bucket, "--chief", SHOW, "--ps", LONG, pools=CLUSTER, attempt=2)
    handle = vertex.submit(asked)
    assert handle.name.startswith(f"{location_name('test-project', 'us-central1')}/customJobs/")
    assert (handle.job_id, handle.attempt, handle.job_dir) == ("mnist_1", 2, f"{bucket}/mnist/mnist_1")
    status = wait(vertex, handle)
    lines = all_lines(vertex, handle)
    assert status.state is JobState.SUCCEEDED, lines
    assert status.created is not None
    assert status.started is not None
    assert status.ended is not None
    assert status.created <= status.started <= status.ended
    messages = {(line.replica, line.text) for line in lines}
    shown = f"TF ['chief', 'ps', 'worker'] {bucket}/mnist/mnist_1 {bucket}/mnist/mnist_1/model/ 2"
    assert ("chief-0", shown) in messages
    assert ("worker-1", "worker-1 restart 0") in messages
    assert ("ps-0", "ps-0 restart 0") in messages
    replicas = [line for line in lines if line.replica != "launcher"]
    assert len(set(replicas)) == len(replicas), "a log line was repeated"


def test_event_files_go_to_the_dir_that_a_tensorboard_instance_reads(
    service: RunningEmulator, actor: str, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    instance = "projects/test-project/locations/us-central1/tensorboards/7"
    vertex = VertexBackend(**service.settings, tensorboard=instance, service_account="a@b.iam.gserviceaccount.com")
    say = "say(os.environ['AIP_TENSORBOARD_LOG_DIR'], os.environ['AIP_CHECKPOINT_DIR'])"
    with caplog.at_level("INFO", "mlengine.backends.vertex.backend"):
        handle = vertex.submit(submission(actor, bucket, "--chief", say))
    assert wait(vertex, handle).state is JobState.SUCCEEDED
    job_dir = f"{bucket}/mnist/mnist_1"
    assert ("chief-0", f"{job_dir}/logs/ {job_dir}/train/") in {
        (line.replica, line.text) for line in all_lines(vertex, handle)
    }
    experiment = f"{instance}/experiments/{handle.name.rsplit('/', 1)[1]}".replace("/", "+")
    assert f"TensorBoard: https://us-central1.tensorboard.googleusercontent.com/experiment/{experiment}" in caplog.text


def test_the_same_submission_starts_one_job(
    vertex: VertexBackend, service: RunningEmulator, actor: str, bucket: str
) -> None:
    first = vertex.submit(submission(actor, bucket, "--chief", LONG))
    again = VertexBackend(**service.settings).submit(submission(actor, bucket, "--chief", LONG))
    assert again == first
    second = vertex.submit(submission(actor, bucket, "--chief", LONG, attempt=2))
    assert vertex.find(KEY) == [first, second]
    assert vertex.find("cd" * 20) == []
    assert service.calls.count("CreateCustomJob") == 2


def test_a_job_is_found_in_the_region_of_its_job_file(service: RunningEmulator, actor: str, bucket: str) -> None:
    asked = submission(actor, bucket, "--chief", LONG)
    asked = replace(asked, spec=replace(asked.spec, region="europe-west4"))
    own: dict[str, Any] = {"project": service.project, "endpoint": service.url}
    submitting = VertexBackend(**own)
    handle = submitting.submit(asked)
    assert handle.name.startswith(location_name("test-project", "europe-west4"))
    assert submitting.find(KEY) == [handle]
    # The region argument takes precedence over the job file's region.
    assert find_attempts(VertexBackend(**service.settings), KEY, asked.spec) == []
    fresh = VertexBackend(**own)
    with pytest.raises(BackendError, match="no region"):
        fresh.find(KEY)
    assert find_attempts(fresh, KEY, asked.spec) == [handle]
    assert fresh.describe([handle])[0].handle == handle


def test_a_gpu_job_that_would_train_on_the_cpu_is_not_created(
    vertex: VertexBackend, service: RunningEmulator, storage: Storage, bucket: str
) -> None:
    package = local_jobs.sdist("", dependencies='["tensorflow-cpu==2.21.0"]')
    uri = local_jobs.put(storage, bucket, package, "gpu/tiny-1.0.tar.gz")
    with pytest.raises(BackendError, match=r"requires tensorflow-cpu==2\.21\.0, a build for CPUs only"):
        vertex.submit(submission(uri, bucket, pools=(Pool(Role.CHIEF, 1, "standard_gpu"),)))
    assert "CreateCustomJob" not in service.calls


def test_a_gpu_job_names_its_accelerators(vertex: VertexBackend, actor: str, bucket: str) -> None:
    show = "say('GIVEN', os.environ.get('MLENGINE_ACCELERATOR_TYPE'))"
    handle = vertex.submit(submission(actor, bucket, "--chief", show, pools=(Pool(Role.CHIEF, 1, "g2-standard-24"),)))
    job = vertex._open().get(handle.name)
    assert job is not None
    (pool,) = job["jobSpec"]["workerPoolSpecs"]
    machine = {"machineType": "g2-standard-24", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 2}
    assert pool["machineSpec"] == machine
    given = {one["name"]: one["value"] for one in pool["containerSpec"]["env"]}
    assert (given["MLENGINE_ACCELERATOR_TYPE"], given["MLENGINE_ACCELERATOR_COUNT"]) == ("NVIDIA_L4", "2")
    assert wait(vertex, handle).state is JobState.SUCCEEDED
    assert "GIVEN None" in {line.text for line in all_lines(vertex, handle)}, "the emulator's machine has no GPU"


def test_a_lost_response_does_not_create_a_second_job(
    vertex: VertexBackend, service: RunningEmulator, actor: str, bucket: str
) -> None:
    service.script("CreateCustomJob", "lose")
    handle = vertex.submit(submission(actor, bucket, "--chief", LONG))
    assert vertex.find(KEY) == [handle]
    assert service.calls.count("CreateCustomJob") == 1


def test_a_failed_create_request_is_retried(
    vertex: VertexBackend, service: RunningEmulator, actor: str, bucket: str
) -> None:
    service.script("CreateCustomJob", "status", status="UNAVAILABLE")
    service.script("CreateCustomJob", "reset", skip=1)
    handle = vertex.submit(submission(actor, bucket, "--chief", LONG))
    assert vertex.find(KEY) == [handle]
    assert service.calls.count("CreateCustomJob") == 3


def test_a_request_over_quota_is_retried(
    vertex: VertexBackend, service: RunningEmulator, actor: str, bucket: str
) -> None:
    words = "The following quotas are exceeded: CustomModelTrainingCPUsPerProjectPerRegion"
    service.script("CreateCustomJob", "status", status="RESOURCE_EXHAUSTED", message=words, times=2)
    vertex.submit(submission(actor, bucket, "--chief", LONG))
    assert service.calls.count("CreateCustomJob") == 3
    service.script("CreateCustomJob", "status", status="RESOURCE_EXHAUSTED", message=words, times=1)
    impatient = VertexBackend(**service.settings, client=RestClient(anonymous_credentials(), quota_patience=0.0))
    with pytest.raises(BackendUnavailableError, match="CustomModelTrainingCPUsPerProjectPerRegion"):
        impatient.submit(submission(actor, bucket, "--chief", LONG, key="ef" * 20))


def test_two_racing_submissions_leave_one_job(
    vertex: VertexBackend, service: RunningEmulator, actor: str, bucket: str
) -> None:
    # When the second submitter lists the jobs, the list does not contain the first job yet.
    first = vertex.submit(submission(actor, bucket, "--chief", LONG))
    service.script("ListCustomJobs", "lag", seconds=60)
    second = VertexBackend(**service.settings).submit(submission(actor, bucket, "--chief", LONG))
    assert second == first
    assert service.calls.count("CreateCustomJob") == 2
    states = [status.state for status in vertex.describe(vertex.find(KEY))]
    assert states[0] in {JobState.QUEUED, JobState.PREPARING, JobState.RUNNING}
    assert states[1] in {JobState.CANCELLING, JobState.CANCELLED}


def test_polls_survive_network_faults(vertex: VertexBackend, service: RunningEmulator, actor: str, bucket: str) -> None:
    handle = vertex.submit(submission(actor, bucket, "--chief", LONG))
    wait(vertex, handle, JobState.RUNNING)
    for action in ("status", "reset", "cut", "lose", "delay"):
        service.script("GetCustomJob", action, seconds=0.2, bytes=20)
        assert vertex.describe([handle])[0].state is JobState.RUNNING
    service.script("GetCustomJob", "status", status="UNAVAILABLE", times=100)
    brief = VertexBackend(**service.settings, client=RestClient(anonymous_credentials(), deadline=0.5))
    with pytest.raises(BackendUnavailableError):
        brief.describe([handle])
    service.server.script.clear()


def test_many_jobs_are_polled_with_one_request(
    vertex: VertexBackend, service: RunningEmulator, actor: str, bucket: str
) -> None:
    handles = [vertex.submit(submission(actor, bucket, "--chief", LONG, key=f"{n:040x}")) for n in range(12)]
    calls = len(service.calls)
    assert [status.handle for status in vertex.describe(handles)] == handles
    assert service.calls[calls:] == ["ListCustomJobs"]
    gone = JobHandle("vertex", handles[0].name + "0", "gone", 1, "gs://bkt/x")
    states = vertex.describe([*handles, gone])
    assert states[-1].failure is not None
    assert states[-1].failure.cause is FailureCause.LOST
    assert not any(status.state.terminal for status in states[:-1])


def test_cancel_is_idempotent(vertex: VertexBackend, actor: str, bucket: str) -> None:
    handle = vertex.submit(submission(actor, bucket, "--chief", LONG))
    wait(vertex, handle, JobState.RUNNING)
    vertex.cancel(handle)
    vertex.cancel(handle)
    status = wait(vertex, handle)
    assert status.state is JobState.CANCELLED
    assert status.failure is not None
    assert status.failure.cause is FailureCause.CANCELLED
    vertex.cancel(handle)
    vertex.cancel(JobHandle("vertex", handle.name + "0", "x", 1, "gs://bkt/x"))
    with pytest.raises(BackendError, match="not the name of a custom job"):
        vertex.cancel(JobHandle("vertex", "abc-1", "x", 1, "gs://bkt/x"))


def test_a_timeout_is_reported_as_a_timeout(service: RunningEmulator, actor: str, bucket: str) -> None:
    """The service's state for a timeout is CANCELLED, with the same error code as any cancellation."""
    client = RestClient(anonymous_credentials(), sleep=lambda _: time.sleep(0.05))
    vertex = VertexBackend(**service.settings, client=client, timeout_seconds=2)
    status = wait(vertex, vertex.submit(submission(actor, bucket, "--chief", LONG)))
    assert status.state is JobState.EXPIRED
    assert status.failure is not None
    assert status.failure.cause is FailureCause.DEADLINE
    assert status.detail == status.failure.message == "Vertex AI cancelled the job at its timeout of 2 s"


def test_the_log_of_a_restarted_job_contains_both_starts(
    vertex: VertexBackend, service: RunningEmulator, actor: str, bucket: str, tmp_path: Path
) -> None:
    service.script("CreateCustomJob", "restart")
    go = tmp_path / "go"
    handle = vertex.submit(submission(actor, bucket, "--chief", f"say('started'); until({str(go)!r})"))
    until = time.monotonic() + 60
    while not vertex.describe([handle])[0].restarting:
        assert time.monotonic() < until
        time.sleep(0.1)
    go.touch()
    assert wait(vertex, handle).state is JobState.SUCCEEDED
    lines = [line.text for line in all_lines(vertex, handle)]
    assert sum(line.startswith("chief-0 started") for line in lines) == 2, lines


def test_a_trainer_error_names_the_replica_and_the_message(vertex: VertexBackend, actor: str, bucket: str) -> None:
    handle = vertex.submit(submission(actor, bucket, "--chief", "say('no luck'); sys.exit(3)"))
    failure = wait(vertex, handle).failure
    assert failure is not None
    assert (failure.cause, failure.replica, failure.exit_code) == (FailureCause.TRAINER, "chief-0", 3)
    assert "no luck" in failure.message


def test_a_preempted_replica_is_a_retryable_failure(
    vertex: VertexBackend, service: RunningEmulator, actor: str, bucket: str
) -> None:
    service.script("CreateCustomJob", "preempt", replica="chief-0")
    failure = wait(vertex, vertex.submit(submission(actor, bucket, "--chief", LONG))).failure
    assert failure is not None
    assert failure.cause is FailureCause.PREEMPTED
    assert failure.cause.retryable


def test_a_job_that_stays_pending_can_be_cancelled(
    vertex: VertexBackend, service: RunningEmulator, actor: str, bucket: str
) -> None:
    service.script("CreateCustomJob", "stick")
    handle = vertex.submit(submission(actor, bucket))
    assert wait(vertex, handle, JobState.PREPARING).started is None
    vertex.cancel(handle)
    assert wait(vertex, handle).state is JobState.CANCELLED


def test_jobs_survive_a_restart_of_the_emulator(make_backend: Make, tmp_path: Path, actor: str, bucket: str) -> None:
    backend, go = make_backend(), tmp_path / "go"
    with running(tmp_path / "emulator", backend=backend, keep_jobs=True) as service:
        port = service.server.port
        vertex = VertexBackend(**service.settings)
        handle = vertex.submit(submission(actor, bucket, "--chief", f"say('before'); until({str(go)!r}); say('after')"))
        wait(vertex, handle, JobState.RUNNING)
        page = vertex.logs(handle, {})
    with running(tmp_path / "emulator", backend=make_backend(), port=port):
        go.touch()
        assert wait(vertex, handle).state is JobState.SUCCEEDED
        assert "before" in [line.text for line in all_lines(vertex, handle)]
        rest = [line.text for line in vertex.logs(handle, page.cursor).lines]
        assert "after" in rest
        assert not set(rest) & {line.text for line in page.lines if line.replica == "chief-0"}
