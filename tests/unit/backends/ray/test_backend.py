"""The Ray backend's requests to Ray, and its handling of the responses, without a server."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest
import yaml

from mlengine.backends import Submission, connected_backend
from mlengine.backends.ray.access import Access
from mlengine.backends.ray.backend import RayBackend
from mlengine.backends.ray.client import RayClient
from mlengine.backends.ray.lost_jobs import LONGEST_GAP_SECONDS
from mlengine.backends.ray.record import Stored, chunk_uri, cluster_uri, folder, job_name, state_uri
from mlengine.core.errors import (
    BackendError,
    BackendUnavailableError,
    ObjectMissingError,
    StorageConflictError,
    StorageError,
)
from mlengine.core.job import FailureCause, JobHandle, JobState
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.storage.client import ObjectStat, Storage

SPEC = TrainingSpec("trainer.task", ("gs://bucket/t-1.tar.gz",), ("--secret", "hush"), (Pool(Role.CHIEF, 1),))
JOB = Submission("k" * 40, "mnist_1", 2, "gs://bucket/mnist/mnist_1", SPEC, {"team": "vision"}, project="p", region="r")
FIRST = replace(JOB, attempt=1)


class Bucket:
    """A bucket in memory.

    :param now: the time of its clock.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, float] = {}
        self.now = 0.0

    def read(self, uri: str) -> bytes:
        if uri not in self.objects:
            raise ObjectMissingError(uri)
        return self.objects[uri]

    def write(self, uri: str, data: bytes, _: str | None = None) -> int:
        self.objects[uri], self.written[uri] = data, self.now
        return 1

    def stat(self, uri: str) -> ObjectStat | None:
        return ObjectStat(uri, 1, 1, written=self.written[uri]) if uri in self.objects else None

    def create(self, uri: str, data: bytes, _: str | None = None) -> int:
        if uri in self.objects:
            raise StorageConflictError(uri)
        return self.write(uri, data)

    def exists(self, uri: str) -> bool:
        return uri in self.objects

    def delete(self, uri: str) -> None:
        self.objects.pop(uri, None)


class Client:
    """A :class:`RayClient` with its jobs in memory.

    :param stops: the results of the calls of ``stop``, in order.
    """

    access = Access("http://head:8265")

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.lists = 0
        self.stops: list[bool] = []
        self.packages: set[str] = set()
        self.joined: list[int] = [1]  # the number of nodes at each call; the last value is repeated
        self.may_join = False

    def check_version(self) -> str:
        return "2.60.0"

    def nodes(self) -> list[dict[str, float]]:
        count = self.joined.pop(0) if len(self.joined) > 1 else self.joined[0]
        return [{"CPU": 4.0}] * count

    def nodes_may_join(self, _: float) -> bool:
        return self.may_join

    def upload(self, name: str, _: bytes) -> None:
        self.packages.add(name)

    def submit(self, body: dict[str, Any]) -> bool:
        new = body["submission_id"] not in self.jobs
        if new:
            self.jobs[body["submission_id"]] = {**body, "status": "PENDING", "start_time": len(self.jobs)}
        return new

    def get(self, name: str) -> dict[str, Any] | None:
        return self.jobs.get(name)

    def list_jobs(self) -> list[dict[str, Any]]:
        self.lists += 1
        return list(self.jobs.values())

    def stop(self, _: str) -> bool:
        return self.stops.pop(0)

    def sleep(self, _: float) -> None:
        """Return at once; no time passes."""


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def client() -> Client:
    return Client()


def backend(client: Client, bucket: Bucket, **more: Any) -> RayBackend:
    return RayBackend(client=cast(RayClient, client), storage=cast(Storage, bucket), **more)


def test_a_submission_is_stored_before_the_job_that_reads_it(client: Client, bucket: Bucket) -> None:
    handle = backend(client, bucket).submit(JOB)
    assert handle == JobHandle("ray", f"mlengine-{'k' * 40}-2", "mnist_1", 2, JOB.job_dir)
    body = client.jobs[handle.name]
    uri = body["entrypoint"].rsplit(" ", 1)[1]
    assert Stored.from_bytes(bucket.objects[uri]).submission == JOB
    assert body["runtime_env"]["working_dir"].removeprefix("gcs://") in client.packages
    assert body["metadata"]["team"] == "vision"
    assert "hush" not in json.dumps(body), "arguments must not be shown in Ray's dashboard"


def test_a_job_that_does_not_fit_is_refused_immediately(client: Client, bucket: Bucket) -> None:
    client.joined = [0, 1]
    with pytest.raises(BackendError, match="no node of the Ray cluster"):
        backend(client, bucket).submit(FIRST)


def test_submit_waits_for_the_nodes_of_a_new_head(client: Client, bucket: Bucket) -> None:
    client.may_join, client.joined = True, [0, 0, 1]
    assert backend(client, bucket).submit(FIRST).name in client.jobs
    client.jobs.clear()
    client.joined = [0]
    with pytest.raises(BackendError, match="no node of the Ray cluster"):
        backend(client, bucket, join_seconds=0.01).submit(FIRST)


def test_a_later_attempt_waits_in_the_queue_for_lost_nodes(client: Client, bucket: Bucket) -> None:
    client.joined = [0]
    assert backend(client, bucket).submit(JOB).name in client.jobs


def test_a_claim_changed_before_its_submission_gets_its_own_record(bucket: Bucket, client: Client) -> None:
    one, other = backend(client, bucket), backend(client, bucket, placement="SPREAD")
    one.submit(JOB)
    client.jobs.clear()
    other.submit(JOB)
    assert len([uri for uri in bucket.objects if "submission-" in uri]) == 2


def test_a_repeated_submission_sends_nothing(client: Client, bucket: Bucket) -> None:
    one = backend(client, bucket)
    first = one.submit(JOB)
    bucket.objects.clear()
    assert one.submit(JOB) == first
    assert bucket.objects == {}


def test_a_runtime_environment_is_merged(client: Client, bucket: Bucket) -> None:
    chosen = {"pip": ["uv"], "env_vars": {"GOOGLE_CLOUD_PROJECT": "p"}}
    handle = backend(client, bucket, runtime_env=chosen, termination_grace_seconds=60).submit(JOB)
    sent = client.jobs[handle.name]["runtime_env"]
    assert sent["pip"] == ["uv"]
    assert sent["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "90", "GOOGLE_CLOUD_PROJECT": "p"}
    assert sent["working_dir"].startswith("gcs://_ray_pkg_")


def test_a_dry_run_shows_what_replicas_reserve(bucket: Bucket) -> None:
    spec = replace(SPEC, pools=(Pool(Role.CHIEF, 1, "standard_gpu"), Pool(Role.WORKER, 1)))
    shown = yaml.safe_load(RayBackend(storage=cast(Storage, bucket)).show(replace(JOB, spec=spec)))
    assert shown["reserves"] == {"chief-0": "8 CPU, 1 GPU, 18 GiB memory", "worker-0": "1 CPU"}
    assert (shown["submission_id"], shown["placement"]) == (job_name(JOB.key, 2), "PACK")
    assert shown["spec"] == spec.to_json()


def test_a_tpu_is_refused_before_anything_is_written(client: Client, bucket: Bucket) -> None:
    job = replace(JOB, spec=replace(SPEC, pools=(Pool(Role.CHIEF, 1, "n1-standard-4", "TPU_V2", 8),)))
    one = backend(client, bucket)
    for method in (one.submit, one.show):
        with pytest.raises(BackendError, match="replicas on Ray get no TPUs"):
            method(job)
    assert bucket.objects == {}
    assert client.jobs == {}


def test_many_jobs_are_described_with_one_list(client: Client, bucket: Bucket) -> None:
    one = backend(client, bucket)
    handles = [JobHandle("ray", job_name("k", attempt), "j", attempt, "gs://bucket/m/j") for attempt in range(1, 50)]
    for handle in handles[:-1]:
        client.jobs[handle.name] = {"submission_id": handle.name, "status": "RUNNING"}
        bucket.write(state_uri(folder(handle)), json.dumps({"state": "RUNNING", "detail": handle.name}).encode())
    found = one.describe(handles)
    assert client.lists == 1
    assert [status.handle for status in found] == handles
    assert [status.detail for status in found[:-1]] == [handle.name for handle in handles[:-1]]
    assert found[-1].failure is not None
    assert found[-1].failure.cause is FailureCause.LOST
    assert one.describe([]) == []


HANDLE = JobHandle("ray", job_name("k", 1), "j", 1, "gs://bucket/m/j")


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"state": "NEW"}'])
def test_a_state_that_cannot_be_read_is_unknown(client: Client, bucket: Bucket, data: bytes) -> None:
    client.jobs[HANDLE.name] = {"submission_id": HANDLE.name, "status": "RUNNING"}
    bucket.write(state_uri(folder(HANDLE)), data)
    assert backend(client, bucket).describe([HANDLE])[0].state is JobState.UNKNOWN


def _running(bucket: Bucket, **more: Any) -> None:
    state = {"state": "RUNNING", "detail": "", "started": 1.0, "lost_seconds": 40.0, **more}
    bucket.write(state_uri(folder(HANDLE)), json.dumps(state).encode())


def _state(client: Client, bucket: Bucket) -> JobState:
    """The state that another Airflow process reads."""
    return backend(client, bucket).describe([HANDLE])[0].state


def test_a_lost_running_job_is_reported_after_its_replicas_have_ended(client: Client, bucket: Bucket) -> None:
    """This holds for any process: a wait may resume in one that has not polled the job before."""
    _running(bucket)
    status = backend(client, bucket).describe([HANDLE])[0]
    assert status.state is JobState.UNKNOWN
    assert status.detail.startswith("waiting until its replicas have ended: the Ray cluster has no job")
    bucket.now = 39.0
    assert _state(client, bucket) is JobState.UNKNOWN
    bucket.now = 41.0
    assert _state(client, bucket) is JobState.FAILED
    bucket.now = 0.0
    assert _state(client, bucket) is JobState.FAILED, "a lost job must stay lost"


@pytest.mark.parametrize("again", [500.0, 30.0])
def test_losing_a_job_again_restarts_its_grace_period(client: Client, bucket: Bucket, again: float) -> None:
    """A command asked a cluster that does not know the job, or the driver kept running and wrote another state."""
    _running(bucket)
    assert _state(client, bucket) is JobState.UNKNOWN
    bucket.now = again
    if again < LONGEST_GAP_SECONDS:
        _running(bucket, detail="2 of 2 replicas run")
    assert _state(client, bucket) is JobState.UNKNOWN
    bucket.now = again + 39.0
    assert _state(client, bucket) is JobState.UNKNOWN
    bucket.now = again + 41.0
    assert _state(client, bucket) is JobState.FAILED


@pytest.mark.parametrize(
    ("ray", "state"),
    [
        ({"status": "FAILED", "driver_exit_code": -11}, JobState.FAILED),
        ({"status": "FAILED", "driver_exit_code": 1, "message": "Traceback"}, JobState.FAILED),
        ({"status": "STOPPED"}, JobState.CANCELLED),
    ],
)
@pytest.mark.parametrize("started", [1.0, None])
def test_the_end_of_a_dead_driver_is_delayed_until_its_replicas_have_ended(
    client: Client, bucket: Bucket, ray: dict[str, Any], state: JobState, started: float | None
) -> None:
    _running(bucket, started=started)
    client.jobs[HANDLE.name] = {"submission_id": HANDLE.name, **ray}
    assert _state(client, bucket) is JobState.UNKNOWN
    bucket.now = 41.0
    assert _state(client, bucket) is state


def test_a_job_without_a_state_has_no_replicas(client: Client, bucket: Bucket) -> None:
    assert _state(client, bucket) is JobState.FAILED


def test_a_lost_job_is_not_reported_while_the_bucket_cannot_be_written_to(
    client: Client, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise StorageError("read only")

    _running(bucket)
    monkeypatch.setattr(bucket, "write", refuse)
    status = backend(client, bucket).describe([HANDLE])[0]
    assert status.state is JobState.UNKNOWN
    assert status.detail.endswith("; read only")


def test_a_job_forgotten_by_the_cluster_is_not_submitted_again(client: Client, bucket: Bucket) -> None:
    """The task was killed just after the submission, and Ray's head node was restarted before the retry."""
    handle = backend(client, bucket).submit(JOB)
    bucket.write(state_uri(folder(handle)), json.dumps({"state": "SUCCEEDED", "detail": ""}).encode())
    client.jobs.clear()
    assert backend(client, bucket).submit(JOB) == handle
    assert client.jobs == {}
    assert backend(client, bucket).describe([handle])[0].state is JobState.SUCCEEDED


def test_a_job_cancelled_while_it_is_lost_gets_no_further_attempt(client: Client, bucket: Bucket) -> None:
    _running(bucket)
    assert _state(client, bucket) is JobState.UNKNOWN
    client.stops = [False]
    backend(client, bucket).cancel(HANDLE)
    bucket.now = 41.0
    assert _state(client, bucket) is JobState.CANCELLED


def test_a_job_is_cancelled_even_while_the_bucket_does_not_respond(
    client: Client, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> int:
        raise StorageError("no answer")

    monkeypatch.setattr(bucket, "write", refuse)
    client.jobs[HANDLE.name] = {"submission_id": HANDLE.name, "status": "RUNNING"}
    client.stops = [True]
    backend(client, bucket).cancel(HANDLE)
    assert client.stops == [], "Ray must be asked to stop the job"
    assert "could not be recorded: no answer" in caplog.text


def test_a_submission_after_a_cancellation_is_a_new_job(client: Client, bucket: Bucket) -> None:
    handle = replace(HANDLE, name=job_name(JOB.key, JOB.attempt), job_dir=JOB.job_dir)
    client.stops = [False]
    backend(client, bucket).cancel(handle)
    assert backend(client, bucket).submit(JOB).name == handle.name
    client.jobs.clear()
    assert backend(client, bucket).describe([handle])[0].state is JobState.FAILED


def test_a_cancellation_is_repeated_until_ray_finds_the_job(client: Client, bucket: Bucket) -> None:
    client.jobs[HANDLE.name] = {"submission_id": HANDLE.name, "status": "PENDING"}
    client.stops = [False, False, True]
    backend(client, bucket).cancel(HANDLE)
    assert client.stops == []


@pytest.mark.parametrize("ray", ["STOPPED", "SUCCEEDED", "FAILED", None])
def test_cancelling_a_finished_job_is_not_an_error(client: Client, bucket: Bucket, ray: str | None) -> None:
    if ray:
        client.jobs[HANDLE.name] = {"submission_id": HANDLE.name, "status": ray}
    client.stops = [False]
    backend(client, bucket).cancel(HANDLE)


def test_failing_to_stop_a_job_is_an_error(client: Client, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlengine.backends.ray.backend.STOP_SECONDS", -1.0)
    client.jobs[HANDLE.name] = {"submission_id": HANDLE.name, "status": "PENDING"}
    client.stops = [False]
    with pytest.raises(BackendUnavailableError, match="did not stop"):
        backend(client, bucket).cancel(HANDLE)


class TestAnAddressThatChanges:
    """A job that was submitted to the cluster of the previous address."""

    @pytest.fixture
    def moved(self, client: Client, bucket: Bucket) -> RayBackend:
        """The backend with the new address, after :data:`JOB` was submitted to the old one."""
        backend(client, bucket).submit(JOB)
        other = Client()
        other.access = Access("http://other:8265")
        other.stops = [False]
        return backend(other, bucket)

    @pytest.fixture
    def handle(self) -> JobHandle:
        return JobHandle("ray", job_name(JOB.key, JOB.attempt), JOB.job_id, JOB.attempt, JOB.job_dir)

    def test_a_job_of_another_cluster_is_not_lost(self, moved: RayBackend, handle: JobHandle) -> None:
        status = moved.describe([handle])[0]
        assert status.state is JobState.UNKNOWN
        assert (
            "was submitted to the Ray cluster at http://head:8265, and ray_address is now http://other:"
            in status.detail
        )
        assert "set ray_address to http://head:8265" in status.detail

    def test_a_job_of_another_cluster_is_not_submitted_again(self, moved: RayBackend) -> None:
        with pytest.raises(BackendError, match=r"was submitted to the Ray cluster at http://head:8265"):
            moved.submit(JOB)

    def test_cancelling_a_job_of_another_cluster_is_an_error(self, moved: RayBackend, handle: JobHandle) -> None:
        with pytest.raises(BackendError, match=r"was submitted to the Ray cluster at http://head:8265"):
            moved.cancel(handle)

    def test_a_recorded_final_state_is_used_after_a_move(
        self, moved: RayBackend, handle: JobHandle, bucket: Bucket
    ) -> None:
        bucket.write(state_uri(folder(handle)), json.dumps({"state": "SUCCEEDED", "detail": ""}).encode())
        assert moved.describe([handle])[0].state is JobState.SUCCEEDED
        moved.cancel(handle)

    def test_the_next_attempt_can_run_on_the_new_cluster(self, moved: RayBackend) -> None:
        assert moved.submit(replace(JOB, attempt=3)).attempt == 3

    def test_a_cluster_that_knows_the_job_is_the_same_under_another_name(
        self, client: Client, bucket: Bucket, moved: RayBackend, handle: JobHandle
    ) -> None:
        client.access = Access("http://alias:8265")
        again = backend(client, bucket)
        assert again.submit(JOB) == handle
        assert again.describe([handle])[0].state is JobState.QUEUED

    def test_a_user_can_declare_the_old_cluster_gone(
        self, moved: RayBackend, handle: JobHandle, bucket: Bucket
    ) -> None:
        bucket.delete(cluster_uri(folder(handle)))
        status = moved.describe([handle])[0]
        assert status.failure is not None
        assert status.failure.cause is FailureCause.LOST
        moved.submit(JOB)

    def test_a_job_refused_by_ray_can_run_elsewhere(
        self, client: Client, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: dict[str, Any]) -> bool:
            raise BackendError("the runtime environment is not valid")

        with monkeypatch.context() as patch:
            patch.setattr(client, "submit", refuse)
            with pytest.raises(BackendError, match="not valid"):
                backend(client, bucket).submit(JOB)
        client.access = Access("http://other:8265")
        assert backend(client, bucket).submit(JOB)


def test_the_ray_section_of_the_job_file_is_used(client: Client, bucket: Bucket) -> None:
    ray = {"placement": "SPREAD", "resources": {"chief": {"CPU": 2}}}
    backend(client, bucket, resources={"CPU": 3}).submit(replace(JOB, spec=replace(SPEC, ray=ray)))
    uri = next(uri for uri in bucket.objects if "submission-" in uri)
    chosen = Stored.from_bytes(bucket.objects[uri]).settings
    assert (chosen.placement, chosen.resources) == ("SPREAD", {"CPU": 3})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"spec": TrainingSpec("t", ("gs://bucket/t.tar.gz",), pools=(Pool(Role.WORKER, 1),))}, "one chief, not 0"),
        ({"spec": TrainingSpec("t")}, "packageUris is empty"),
        ({"attempt": 0}, "the first attempt is number 1"),
    ],
)
def test_an_invalid_submission_is_refused(
    client: Client, bucket: Bucket, changed: dict[str, Any], message: str
) -> None:
    fields: dict[str, Any] = {"key": "k", "job_id": "j", "attempt": 1, "job_dir": "gs://bucket/m/j", "spec": SPEC}
    with pytest.raises(BackendError, match=message):
        backend(client, bucket).submit(Submission(**{**fields, **changed}))


def test_a_setting_that_does_not_exist_is_refused(client: Client, bucket: Bucket) -> None:
    with pytest.raises(BackendError, match="the ray backend has no setting 'spot'"):
        backend(client, bucket, spot=True).submit(JOB)


def test_project_and_region_are_ignored() -> None:
    made = connected_backend("ray", None, project="p", region="r", address="http://head:8265")
    assert made.console_url(HANDLE) == f"http://head:8265/#/jobs/{HANDLE.name}"


def test_chunks_sort_by_name() -> None:
    assert sorted(chunk_uri("o", number) for number in (10, 9)) == [chunk_uri("o", 9), chunk_uri("o", 10)]


@pytest.mark.parametrize("interval", [60.0, LONGEST_GAP_SECONDS + 1.0, 3600.0])
def test_a_rare_poll_still_detects_a_lost_job(client: Client, bucket: Bucket, interval: float) -> None:
    _running(bucket)
    states = []
    for check in range(3):
        bucket.now = check * interval
        states.append(_state(client, bucket))
    assert states[0] is JobState.UNKNOWN
    assert states[-1] is JobState.FAILED


@pytest.mark.parametrize("word", ["FAILED", "STOPPED"])
def test_rare_polls_do_not_delay_the_end_of_a_job(client: Client, bucket: Bucket, word: str) -> None:
    """The driver of an ended job cannot come back, unlike that of a job of which Ray has no record."""
    _running(bucket)
    client.jobs[HANDLE.name] = {"submission_id": HANDLE.name, "status": word}
    assert _state(client, bucket) is JobState.UNKNOWN
    bucket.now = LONGEST_GAP_SECONDS + 1.0
    assert _state(client, bucket).terminal


def test_an_unavailable_bucket_is_reported_in_the_detail(
    client: Client, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> bytes:
        raise StorageError("the bucket does not respond")

    monkeypatch.setattr(bucket, "read", refuse)
    detail = backend(client, bucket).describe([HANDLE])[0].detail
    assert detail == "its state in the bucket cannot be read: the bucket does not respond"


def test_the_end_of_a_recovered_job_starts_a_new_grace_period(client: Client, bucket: Bucket) -> None:
    """The head node was briefly away. The job then ran for two hours in one state until its driver was killed."""
    _running(bucket)
    assert _state(client, bucket) is JobState.UNKNOWN
    bucket.now = 5.0
    client.jobs[HANDLE.name] = {"submission_id": HANDLE.name, "status": "RUNNING"}
    assert _state(client, bucket) is JobState.RUNNING
    bucket.now = 7200.0
    client.jobs[HANDLE.name] = {"submission_id": HANDLE.name, "status": "FAILED", "driver_exit_code": -9}
    assert _state(client, bucket) is JobState.UNKNOWN, "its replicas may still be running"
    bucket.now += 41.0
    assert _state(client, bucket) is JobState.FAILED
