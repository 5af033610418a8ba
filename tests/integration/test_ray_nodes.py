"""Tests the ray backend on a head and two nodes with separate networks: lost nodes, and what remains on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends import Submission
from mlengine.backends.ray.backend import RayBackend
from mlengine.core.job import FailureCause, JobHandle, JobState
from mlengine.core.spec import Pool, Role
from mlengine.storage.client import Storage
from mlengine.testing import gcs
from tests.support import local_jobs, ray_network
from tests.support.ray_jobs import QUICK, WAIT, all_lines, submission, until, wait
from tests.support.ray_network import Node, RayNetwork

pytestmark = pytest.mark.integration
LONG = "until('/nowhere')"
CHILD = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
PAIR = (Pool(Role.CHIEF, 1), Pool(Role.WORKER, 1))
# The chief runs on the head, the workers on the other nodes.
PLACES = {"chief": {"head": 1}, "worker": {"node": 1}, "ps": {"node": 1}}


@pytest.fixture(scope="module")
def network() -> Iterator[RayNetwork]:
    if reason := ray_network.impossible():
        pytest.skip(reason)
    with ray_network.network() as made:
        yield made


@pytest.fixture(scope="module")
def gcs_server(network: RayNetwork) -> Iterator[gcs.GcsServer]:
    """A server that all nodes can reach."""
    with gcs.running(host=network.host) as server:
        network.start(server.env, (1, 1, 1))
        yield server


@pytest.fixture
def ray(network: RayNetwork, storage: Storage) -> Iterator[RayBackend]:
    """A backend on the cluster.

    At the end of the test every job has ended, and no process of one is left on any node.
    """
    backend = RayBackend(address=network.address, storage=storage, resources=PLACES, placement="STRICT_SPREAD", **QUICK)
    yield backend
    for node in network.nodes:
        node.repair()
    network.wait()
    for handle in backend.jobs():
        backend.cancel(handle)
    until(lambda: all(status.state.terminal for status in backend.describe(backend.jobs())), "all jobs have ended")
    until(lambda: not network.replicas(), "no process of a job is left")


@pytest.fixture
def actor(storage: Storage, bucket: str) -> str:
    """The trainer as a wheel: the nodes cannot reach a package index, and a build needs packages."""
    return local_jobs.put(storage, bucket, local_jobs.wheel(local_jobs.ACTOR), "tiny-1.0-py3-none-any.whl")


@pytest.fixture
def submit(ray: RayBackend, actor: str, bucket: str) -> Callable[..., JobHandle]:
    """Submits a job with a chief and a worker that do what the arguments say."""

    def run(chief: str, worker: str) -> JobHandle:
        return ray.submit(_pair(actor, bucket, chief, worker))

    return run


def _pair(actor: str, bucket: str, chief: str, worker: str, **more: Any) -> Submission:
    return submission(actor, bucket, *local_jobs.acts(chief=chief, worker=worker), pools=PAIR, **more)


def texts(ray: RayBackend, handle: JobHandle) -> list[str]:
    return [line.text for line in all_lines(ray, handle)]


def when_both_run(ray: RayBackend, handle: JobHandle, network: RayNetwork) -> Node:
    """Wait until chief and worker run, and return the worker's node."""
    until(lambda: {"chief-0 restart 0", "worker-0 restart 0"} <= set(texts(ray, handle)), "chief and worker run")
    (found,) = [node for node in network.nodes[1:] if node.replicas()]
    return found


LISTEN = """
host, port = config["cluster"][task["type"]][0].split(":")
server = socket.create_server((host, int(port)))
until("/nowhere")
"""
CONNECT = """
say("CLUSTER", json.dumps(config["cluster"]))
def connect(address):
    host, port = address.split(":")
    while True:
        try:
            return socket.create_connection((host, int(port)), 1)
        except OSError:
            time.sleep(0.1)
connect(config["cluster"]["worker"][0]), connect(config["cluster"]["ps"][0])
"""


def test_replicas_on_three_nodes_find_each_other(ray: RayBackend, actor: str, bucket: str, network: RayNetwork) -> None:
    acts = local_jobs.acts(chief=CONNECT, worker=LISTEN, ps=LISTEN)
    pools = (Pool(Role.CHIEF, 1), Pool(Role.WORKER, 1), Pool(Role.PS, 1))
    handle = ray.submit(submission(actor, bucket, *acts, pools=pools))
    status = wait(ray, handle)
    lines = texts(ray, handle)
    assert status.state is JobState.SUCCEEDED, lines
    shown = json.loads(next(text for text in lines if text.startswith("CLUSTER")).removeprefix("CLUSTER"))
    hosts = [shown[role][0].split(":")[0] for role in ("chief", "worker", "ps")]
    assert sorted(hosts) == sorted(node.address for node in network.nodes)
    assert hosts[0] == network.head.address
    assert network.left() == []


def _cancelled(ray: RayBackend, handle: JobHandle) -> None:
    ray.cancel(handle)


def _nothing(ray: RayBackend, handle: JobHandle) -> None:
    """Do nothing: the job ends by itself."""


@pytest.mark.parametrize(
    ("chief", "more", "order", "state", "cause"),
    [
        (CHILD + LONG, {}, _cancelled, JobState.CANCELLED, FailureCause.CANCELLED),
        (CHILD + LONG, {"max_running_seconds": 3}, _nothing, JobState.FAILED, FailureCause.DEADLINE),
        (CHILD + "sys.exit(3)", {}, _nothing, JobState.FAILED, FailureCause.TRAINER),
    ],
    ids=["cancel", "deadline", "failure"],
)
def test_nothing_is_left_on_a_node_when_a_job_ends(
    ray: RayBackend,
    actor: str,
    bucket: str,
    network: RayNetwork,
    chief: str,
    more: dict[str, Any],
    order: Callable[[RayBackend, JobHandle], None],
    state: JobState,
    cause: FailureCause,
) -> None:
    acts = local_jobs.acts(chief=chief, worker=CHILD + "signal.signal(15, signal.SIG_IGN); " + LONG)
    handle = ray.submit(submission(actor, bucket, *acts, pools=PAIR, **more))
    until(lambda: "worker-0 restart 0" in texts(ray, handle), "the worker runs")
    order(ray, handle)
    status = wait(ray, handle)
    left = network.left()
    assert status.state is state
    assert status.failure is not None
    assert status.failure.cause is cause
    assert left == []


def test_a_lost_node_causes_a_restart_from_the_checkpoint(
    ray: RayBackend, submit: Callable[..., JobHandle], network: RayNetwork
) -> None:
    """The number of starts is in the chief's scratch directory, which remains on its node."""
    handle = submit(chief=f"restarts or {LONG}", worker=LONG)
    node = when_both_run(ray, handle, network)
    node.kill()
    until(lambda: ray.describe([handle])[0].restarting, "the job is restarting")
    assert "lost worker-0" in ray.describe([handle])[0].detail
    status = wait(ray, handle)
    lines = texts(ray, handle)
    assert status.state is JobState.SUCCEEDED, lines
    assert lines.count("chief-0 restart 1") == 1
    assert sum("restarting all replicas" in text for text in lines) == 1


def test_a_network_partition_does_not_leave_two_groups_running(
    ray: RayBackend, submit: Callable[..., JobHandle], network: RayNetwork
) -> None:
    handle = submit(chief=f"restarts or {LONG}", worker=CHILD + LONG)
    node = when_both_run(ray, handle, network)
    node.cut()
    other = next(one for one in network.nodes[1:] if one is not node)
    # The worker continues without a network until it notices that the driver is gone.
    assert node.replicas()
    # Poll often, so that an overlap is noticed.
    local_jobs.until(other.replicas, "the worker starts on the other node", WAIT, pause=0.1)
    assert node.replicas() == []
    assert wait(ray, handle).state is JobState.SUCCEEDED, texts(ray, handle)


def test_losing_the_head_uses_one_attempt(ray: RayBackend, actor: str, bucket: str, network: RayNetwork) -> None:
    asked = _pair(actor, bucket, CHILD + LONG, CHILD + LONG)
    before = {Path(path).name for path in network.left()}
    handle = ray.submit(asked)
    node = when_both_run(ray, handle, network)
    network.head.kill()
    until(lambda: not node.replicas(), "the worker ends without its driver")
    network.head.start()
    network.wait()
    status = ray.describe([handle])[0]
    assert status.failure is not None
    assert status.failure.cause is FailureCause.LOST
    again = ray.submit(_pair(actor, bucket, "", "", attempt=2, key=asked.key))
    assert wait(ray, again).state is JobState.SUCCEEDED
    assert network.replicas() == []
    # If a job's node or head is lost, its files remain on the node until the next job there removes them.
    assert {Path(path).name for path in network.left()} <= before | {handle.name}
    assert not (network.head.state_dir / "ray" / handle.name).exists()
