"""Tests the backend contract with the ray backend on a real Ray cluster of one node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends.ray.access import Access
from mlengine.backends.ray.backend import RayBackend
from mlengine.backends.ray.client import RayClient
from mlengine.backends.ray.record import job_name
from mlengine.backends.ray.shipping import START
from mlengine.core.errors import BackendError, BackendUnavailableError
from mlengine.core.job import FailureCause, JobHandle, JobState
from mlengine.core.spec import Pool, Role
from mlengine.runtime import processes
from mlengine.storage.client import Storage
from mlengine.testing.gcs import GcsServer
from tests.support import ray_cluster
from tests.support.ray_cluster import RayCluster
from tests.support.ray_jobs import QUICK, all_lines, submission, until, wait

pytestmark = pytest.mark.integration
LONG = "until('/nowhere')"


@pytest.fixture(scope="module")
def cluster(gcs_server: GcsServer) -> Iterator[RayCluster]:
    with ray_cluster.running(gcs_server.env, cpus=4) as started:
        yield started


@pytest.fixture
def node_dir(tmp_path: Path, shared_environments: Path) -> Path:
    folder = tmp_path / "node"
    folder.mkdir()
    (folder / "envs").symlink_to(shared_environments / "envs")
    return folder


@pytest.fixture
def make_ray(cluster: RayCluster, storage: Storage, node_dir: Path) -> Iterator[Callable[..., RayBackend]]:
    """Creates backends on the cluster. At the end of the test every job has ended, without anything left behind."""
    made: list[RayBackend] = []

    def make(**settings: Any) -> RayBackend:
        made.append(
            RayBackend(
                address=cluster.address,
                storage=storage,
                **{**QUICK, "resources": {"CPU": 0.5}, "node_dir": str(node_dir), **settings},
            )
        )
        return made[-1]

    yield make
    if made:
        for handle in made[0].jobs():
            made[0].cancel(handle)
        until(lambda: all(status.state.terminal for status in made[0].describe(made[0].jobs())), "the job ends")
        until(lambda: not left(node_dir), "no process of a job is left")


@pytest.fixture
def ray(make_ray: Callable[..., RayBackend]) -> RayBackend:
    return make_ray()


def left(node_dir: Path) -> list[processes.Process]:
    """The processes of all jobs on the node."""
    return [process for root in (node_dir / "ray").glob("*") for process in processes.of_job(root)]


CLUSTER = (Pool(Role.CHIEF, 1), Pool(Role.WORKER, 2), Pool(Role.PS, 1))
SHOW = "say('TF', sorted(config['cluster']), args.job_dir, os.environ['AIP_MODEL_DIR'], os.environ['MLENGINE_ATTEMPT'])"


def test_a_cluster_trains_and_its_log_is_complete(ray: RayBackend, actor: str, bucket: str) -> None:
    asked = submission(actor, bucket, "--chief", SHOW, "--ps", LONG, pools=CLUSTER, attempt=2)
    handle = ray.submit(asked)
    assert handle == JobHandle("ray", job_name(asked.key, 2), "mnist_1", 2, f"{bucket}/mnist/mnist_1")
    status = wait(ray, handle)
    lines = all_lines(ray, handle)
    assert status.state is JobState.SUCCEEDED, (status, lines)
    assert status.created is not None
    assert status.started is not None
    assert status.ended is not None
    assert status.created <= status.started <= status.ended
    messages = [(line.replica, line.text) for line in lines]
    shown = f"TF ['chief', 'ps', 'worker'] {bucket}/mnist/mnist_1 {bucket}/mnist/mnist_1/model/ 2"
    assert messages.count(("chief-0", shown)) == 1
    assert messages.count(("worker-1", "worker-1 restart 0")) == 1
    assert messages.count(("ps-0", "ps-0 restart 0")) == 1


def test_the_same_submission_starts_one_job(
    ray: RayBackend, make_ray: Callable[..., RayBackend], actor: str, bucket: str
) -> None:
    asked = submission(actor, bucket, "--chief", LONG)
    first = ray.submit(asked)
    assert make_ray().submit(asked) == first
    second = ray.submit(submission(actor, bucket, "--chief", LONG, attempt=2, key=asked.key))
    assert ray.find(asked.key) == [first, second]
    assert ray.find("cd" * 20) == []


def test_a_cancelled_job_leaves_no_process(ray: RayBackend, actor: str, bucket: str, node_dir: Path) -> None:
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); " + LONG
    handle = ray.submit(submission(actor, bucket, "--chief", child))
    wait(ray, handle, JobState.RUNNING)
    until(lambda: len(left(node_dir)) >= 2, "the trainer and its child run")
    ray.cancel(handle)
    status = wait(ray, handle)
    assert status.state is JobState.CANCELLED
    assert status.failure is not None
    assert status.failure.cause is FailureCause.CANCELLED
    assert not left(node_dir)
    ray.cancel(handle)
    ray.cancel(JobHandle("ray", "mlengine-unknown-1", "x", 1, f"{bucket}/m/x"))


def test_a_failed_replica_is_named(ray: RayBackend, actor: str, bucket: str) -> None:
    handle = ray.submit(submission(actor, bucket, "--chief", "say('no such file'); sys.exit(3)"))
    status = wait(ray, handle)
    assert status.state is JobState.FAILED
    assert status.failure is not None
    assert (status.failure.cause, status.failure.replica, status.failure.exit_code) == (
        FailureCause.TRAINER,
        "chief-0",
        3,
    )
    assert "no such file" in status.failure.log_tail


def test_a_job_that_ray_does_not_know_is_lost(ray: RayBackend, bucket: str) -> None:
    status = ray.describe([JobHandle("ray", "mlengine-unknown-1", "x", 1, f"{bucket}/m/x")])[0]
    assert status.state is JobState.FAILED
    assert status.failure is not None
    assert status.failure.cause is FailureCause.LOST


def test_a_killed_driver_leaves_no_replica(ray: RayBackend, actor: str, bucket: str, node_dir: Path) -> None:
    handle = ray.submit(submission(actor, bucket, "--chief", LONG, pools=(Pool(Role.CHIEF, 1), Pool(Role.WORKER, 1))))
    wait(ray, handle, JobState.RUNNING)
    until(lambda: len(left(node_dir)) >= 2, "the trainers run")
    os.kill(pid_of(f"{START} {bucket}"), signal.SIGKILL)
    status = wait(ray, handle)
    assert status.failure is not None
    assert status.failure.cause is FailureCause.LOST
    until(lambda: not left(node_dir), "no process of the job is left")


def test_a_lost_replica_restarts_the_cluster(ray: RayBackend, actor: str, bucket: str, tmp_path: Path) -> None:
    marker = tmp_path / "second"
    chief = f"say('addresses', config['cluster']['worker']); until({str(marker)!r})"
    worker = f"(restarts and Path({str(marker)!r}).touch()) or {LONG}"
    pools = (Pool(Role.CHIEF, 1), Pool(Role.WORKER, 1))
    handle = ray.submit(submission(actor, bucket, "--chief", chief, "--worker", worker, pools=pools))
    wait(ray, handle, JobState.RUNNING)
    until(lambda: "worker-0 restart 0" in [line.text for line in all_lines(ray, handle)], "the worker runs")
    os.kill(pid_of("ray::ReplicaHost"), signal.SIGKILL)
    status = wait(ray, handle)
    messages = [line.text for line in all_lines(ray, handle)]
    assert status.state is JobState.SUCCEEDED, messages
    assert any("restarting all replicas, restart 1 of 5" in text for text in messages)
    assert status.started is not None


def test_a_queued_job_shows_why_ray_does_not_start_it(
    make_ray: Callable[..., RayBackend], actor: str, bucket: str
) -> None:
    large = make_ray(resources={"CPU": 3})
    first = large.submit(submission(actor, bucket, "--chief", LONG))
    wait(large, first, JobState.RUNNING)
    second = large.submit(submission(actor, bucket))
    status = wait(large, second, JobState.QUEUED)
    until(lambda: "Ray's scheduler says" in large.describe([second])[0].detail, "Ray's reason")
    assert "3 CPU" in large.describe([second])[0].detail
    large.cancel(first)
    assert wait(large, second).state is JobState.SUCCEEDED, status


RESERVE = """
from mlengine.backends.ray.cluster import Cluster

cluster = Cluster("test", [{"CPU": 1}], "PACK")
cluster.connect()
cluster.reserve()
assert any(cluster.reserved() for _ in range(100))
print([cluster.reserved() for _ in range(100)].count(True))
"""


def test_a_complete_reservation_is_always_seen(cluster: RayCluster) -> None:
    env = {**os.environ, "RAY_ADDRESS": f"127.0.0.1:{cluster.gcs_port}"}
    done = subprocess.run([sys.executable, "-c", RESERVE], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "100\n", done.stderr


def test_a_job_that_can_never_fit_is_refused(make_ray: Callable[..., RayBackend], actor: str, bucket: str) -> None:
    asked = submission(actor, bucket)
    with pytest.raises(BackendError, match=r"chief-0 needs 64 CPU.* the largest of 1 has 4 CPU"):
        make_ray(resources={"CPU": 64}).submit(asked)
    assert make_ray().find(asked.key) == []


def test_a_server_other_than_a_ray_dashboard_is_refused(gcs_server: GcsServer, storage: Storage, bucket: str) -> None:
    with pytest.raises(BackendError, match="is no Ray dashboard"):
        RayBackend(address=gcs_server.url, storage=storage).submit(submission("gs://b/x-1.tar.gz", bucket))


def test_wrong_ports_and_protocols_of_a_cluster_are_refused_immediately(
    cluster: RayCluster, storage: Storage, bucket: str
) -> None:
    for address, message in (
        (f"http://127.0.0.1:{cluster.gcs_port}", "is no Ray dashboard: it does not answer in HTTP"),
        (cluster.address.replace("http:", "https:"), "is no Ray dashboard: .*SSL"),
    ):
        with pytest.raises(BackendError, match=message) as error:
            RayBackend(address=address, storage=storage).submit(submission("gs://b/x-1.tar.gz", bucket))
        assert not error.value.retryable


def test_a_node_without_a_package_is_an_error_that_names_it(
    make_ray: Callable[..., RayBackend], actor: str, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "uv.py").write_text("raise ImportError('not installed')\n")
    ray = make_ray(runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path / "hidden")}})
    status = wait(ray, ray.submit(submission(actor, bucket)))
    assert status.state is JobState.FAILED
    assert status.failure is not None
    assert status.failure.message == (
        "mlengine cannot run on this Ray cluster: install these packages on its nodes, or add them to "
        "ray_runtime_env: uv"
    )
    assert status.started is None


def test_the_job_file_determines_the_resources(make_ray: Callable[..., RayBackend], actor: str, bucket: str) -> None:
    asked = submission(actor, bucket, ray={"resources": {"chief": {"CPU": 64}}})
    with pytest.raises(BackendError, match=r"chief-0 needs 64 CPU.* the largest of 1 has 4 CPU"):
        make_ray(resources=None).submit(asked)
    pools = (Pool(Role.CHIEF, 1), Pool(Role.WORKER, 1))
    spread = submission(actor, bucket, pools=pools, ray={"placement": "STRICT_SPREAD"})
    with pytest.raises(BackendError, match=r"STRICT_SPREAD.* has 1"):
        make_ray().submit(spread)


def test_a_killed_cluster_with_a_token_leaves_no_process(
    gcs_server: GcsServer,
    storage: Storage,
    actor: str,
    bucket: str,
    node_dir: Path,
    ray: RayBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = "a-token-of-this-test-" * 3
    settings: dict[str, Any] = {"storage": storage, "resources": {"CPU": 1}, "node_dir": str(node_dir)}
    elsewhere = ray.submit(submission(actor, bucket, "--chief", LONG))
    with ray_cluster.running(gcs_server.env, cpus=1, token=token) as cluster:
        monkeypatch.setenv("AIRFLOW__MLENGINE__RAY_TOKEN_CMD", f"echo {token}")
        moved = RayBackend(address=cluster.address, lost_seconds=0.0, **settings)
        status = moved.describe([elsewhere])[0]
        assert status.state is JobState.UNKNOWN, "a job on the previous cluster must not be reported as lost"
        assert "was submitted to the Ray cluster at" in status.detail
        with pytest.raises(BackendError, match="was submitted to the Ray cluster at"):
            moved.cancel(elsewhere)
        monkeypatch.delenv("AIRFLOW__MLENGINE__RAY_TOKEN_CMD")
        asked = submission(actor, bucket, "--chief", LONG)
        for wrong in ("", "wrong"):
            with pytest.raises(BackendError, match="refuses the token: 40"):
                RayBackend(address=cluster.address, token=wrong, **settings).submit(asked)
        ray.cancel(elsewhere)
        until(lambda: not left(node_dir), "the other cluster's job has ended")
        client = RayClient(Access.find(cluster.address, token), deadline=1.0)
        secured = RayBackend(client=client, **settings)
        handle = secured.submit(asked)
        wait(secured, handle, JobState.RUNNING)
        until(lambda: left(node_dir), "the trainer runs")
        cluster.kill()
        with pytest.raises(BackendUnavailableError, match="no answer"):
            secured.describe([handle])
        until(lambda: not left(node_dir), "no process of the job is left")


def pid_of(words: str) -> int:
    """The PID of the process whose command line contains ``words`` and whose executable is not a shell."""
    for path in Path("/proc").glob("[1-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if words in command and not command.startswith(("/bin/sh", "sh ")):
            return int(path.name)
    raise AssertionError(f"no process {words!r}")
