"""One replica on its node, with a real process and without Ray."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends import Submission
from mlengine.backends.ray import replica_host
from mlengine.backends.ray.prepare import prune
from mlengine.backends.ray.record import Stored
from mlengine.backends.ray.replica_host import ReplicaHost
from mlengine.backends.ray.settings import RaySettings
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.runtime.json_files import write_json
from mlengine.runtime.rendezvous import CHIEF_PORTS
from tests.support.local_jobs import until

DIGEST = "d" * 40
HOST = "127.0.0.1"
SHOW = """
import json, os, sys
print(json.dumps([sys.argv[1:], os.environ["TF_CONFIG"], dict(os.environ)]))
sys.exit(3)
"""
SLEEP = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(9)); print('up', flush=True); time.sleep(600)"


@pytest.fixture
def node_dir(tmp_path: Path) -> Path:
    """A node that already has the environment, with the interpreter of this process."""
    root = tmp_path / "node" / "envs" / DIGEST
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python").symlink_to(sys.executable)
    write_json(root / "ready.json", {"lock": ["a==1"]})
    return tmp_path / "node"


@pytest.fixture
def make(node_dir: Path, tmp_path: Path) -> Iterator[Callable[..., ReplicaHost]]:
    """A factory of hosts for a job with a chief and a worker, whose trainer is ``code``."""
    made: list[ReplicaHost] = []

    def host(
        code: str = SLEEP,
        role: str = "chief",
        *,
        key: str = "k",
        resources: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        accelerators: int = 0,
    ) -> ReplicaHost:
        (tmp_path / "trainer_of_test.py").write_text(code)
        settings = RaySettings.load(node_dir=str(node_dir), termination_grace_seconds=5, resources=resources)
        spec = TrainingSpec(
            "trainer_of_test",
            ("gs://bucket/t.tar.gz",),
            ("--x", "1"),
            (Pool(Role.CHIEF, 1, None, "NVIDIA_L4" if accelerators else None, accelerators), Pool(Role.WORKER, 1)),
            env={"PYTHONPATH": str(tmp_path), **(env or {})},
        )
        stored = Stored(Submission(key, "job", 3, "gs://bucket/m/job", spec), settings)
        made.append(ReplicaHost(stored.to_bytes(), role, 0, HOST))
        return made[-1]

    yield host
    for one in made:
        one.end()
        until(partial(_ended, one), "the end of the processes")


def _ended(host: ReplicaHost) -> bool:
    return host._command is None or host.poll()["exit_code"] is not None


def address(host: ReplicaHost) -> str:
    """The address that the replica reserves."""
    found = host.take(DIGEST)
    assert found is not None
    return found


def output(host: ReplicaHost) -> tuple[bytes, int]:
    """Wait for the end, and return all output and the exit code."""
    data = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        poll = host.poll()
        data += poll["output"]
        if poll["exit_code"] is not None:
            return data, poll["exit_code"]
        time.sleep(0.02)
    raise AssertionError(data)


def test_a_replica_gets_its_task_in_the_cluster(make: Callable[..., ReplicaHost]) -> None:
    chief, worker = make(SHOW), make(SHOW, "worker")
    addresses = {"chief": [address(chief)], "worker": [address(worker)]}
    assert addresses["chief"] != addresses["worker"]
    numbers = chief.chief_ports()
    worker.start(addresses, numbers)
    data, exit_code = output(worker)
    args, config, env = json.loads(data)
    pools = json.loads(env["CLUSTER_SPEC"])
    assert pools["cluster"] == {"workerpool0": addresses["chief"], "workerpool1": addresses["worker"]}
    assert pools["task"] == {"type": "workerpool1", "index": 0}
    assert exit_code == 3
    assert args == ["--x", "1", "--job-dir", "gs://bucket/m/job"]
    assert json.loads(config)["cluster"] == addresses
    assert json.loads(config)["task"] == {"type": "worker", "index": 0}
    assert env["MLENGINE_ATTEMPT"] == "3"
    assert (env["RANK"], env["WORLD_SIZE"], env["MASTER_PORT"]) == ("1", "2", str(numbers[0]))


def environment(host: ReplicaHost) -> dict[str, str]:
    """The environment variables that the trainer sees. Its code is :data:`SHOW`."""
    host.start({"chief": [address(host)], "worker": ["127.0.0.1:1"]}, CHIEF_PORTS)
    found: dict[str, str] = json.loads(output(host)[0])[2]
    return found


def test_a_replica_without_gpus_sees_none(make: Callable[..., ReplicaHost], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sets CUDA_VISIBLE_DEVICES only for actors that reserve some."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert environment(make(SHOW))["CUDA_VISIBLE_DEVICES"] == "-1"
    assert environment(make(SHOW, key="own", env={"CUDA_VISIBLE_DEVICES": "1"}))["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    half = environment(make(SHOW, key="half", resources={"chief": {"GPU": 0.5}}))
    assert half["CUDA_VISIBLE_DEVICES"] == "3"
    assert half["MLENGINE_ACCELERATOR_COUNT"] == "1"


@pytest.mark.parametrize(
    ("requested", "reserved", "rank"),
    [(0, {"GPU": 4}, None), (4, {"GPU": 1}, "0"), (4, None, None), (0, {"GPU": 0.5}, "0"), (4, {"CPU": 1}, "0")],
)
def test_the_local_world_size_depends_on_the_reserved_gpus(
    make: Callable[..., ReplicaHost], requested: int, reserved: dict[str, float] | None, rank: str | None
) -> None:
    env = environment(make(SHOW, accelerators=requested, resources=reserved and {"chief": reserved}))
    assert (env.get("LOCAL_RANK"), env.get("LOCAL_WORLD_SIZE")) == (rank, rank and "1")
    assert env["RANK"] == "0"


def test_replicas_do_not_use_a_proxy_for_each_other(
    make: Callable[..., ReplicaHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "example.com")
    chief = make("import os; print(os.environ['NO_PROXY'])")
    chief.take(DIGEST)
    chief.start({"chief": ["10.0.0.1:1"], "worker": ["10.0.0.2:1"]}, CHIEF_PORTS)
    assert {"example.com", "10.0.0.1", "10.0.0.2"} <= set(output(chief)[0].decode().strip().split(","))


def test_an_environment_that_was_removed_is_reported(make: Callable[..., ReplicaHost]) -> None:
    assert make().take("e" * 40) is None


def test_a_stopped_replica_can_save_its_work(make: Callable[..., ReplicaHost]) -> None:
    chief = make()
    addresses = {"chief": [address(chief)], "worker": ["127.0.0.1:1"]}
    chief.start(addresses, CHIEF_PORTS)
    until(lambda: chief.poll()["output"], "output")
    chief.end()
    assert output(chief)[1] == 9


def test_a_replica_ends_if_its_driver_is_gone(
    make: Callable[..., ReplicaHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_host, "DRIVER_TIMEOUT_SECONDS", 0.5)
    chief = make()
    chief.start({"chief": [address(chief)], "worker": ["127.0.0.1:1"]}, CHIEF_PORTS)
    command: Any = chief._command
    assert until(lambda: command.poll() is not None, "the end of the processes")


def test_the_drivers_next_call_confirms_the_last_response(make: Callable[..., ReplicaHost]) -> None:
    """A driver that does not receive a response counts its time limit from the previous one."""
    chief = make()
    chief.start({"chief": [address(chief)], "worker": ["127.0.0.1:1"]}, CHIEF_PORTS)
    chief.poll()
    answered = chief._answered
    assert chief._contact < answered
    chief.poll()
    assert chief._contact == answered


def test_a_replica_starts_after_its_predecessor_has_ended(
    make: Callable[..., ReplicaHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_host, "_LOCK_SECONDS", -4.9)
    first, second = make(), make()
    addresses = {"chief": [address(first)], "worker": ["127.0.0.1:1"]}
    first.start(addresses, CHIEF_PORTS)
    with pytest.raises(RuntimeError, match="an earlier process of chief-0 does not end"):
        second.take(DIGEST)
    first.end()
    output(first)
    assert first._turn is not None
    with first._turn:
        pass
    monkeypatch.setattr(replica_host, "_LOCK_SECONDS", 20.0)
    second.take(DIGEST)
    second.start(addresses, CHIEF_PORTS)
    until(lambda: second.poll()["output"], "output")


def test_only_files_of_jobs_that_have_ended_are_removed(make: Callable[..., ReplicaHost], node_dir: Path) -> None:
    chief = make()
    chief.start({"chief": [address(chief)], "worker": ["127.0.0.1:1"]}, CHIEF_PORTS)
    left = node_dir / "ray" / "mlengine-killed-1"
    (left / "work").mkdir(parents=True)
    locks = node_dir / "locks"
    in_use = {path.name for path in locks.glob("ray-*")}
    assert in_use == {"ray-mlengine-k-3.lock", "ray-k-chief-0.lock"}
    # The lock of a job that has removed its other files, that of its replica, and a lock that belongs to no job.
    others = {"ray-mlengine-ended-1.lock", "ray-ended-chief-0.lock", "env-e.lock"}
    for name in others:
        (locks / name).touch()
    assert prune(node_dir) == ["mlengine-killed-1"]
    assert not left.exists()
    assert (node_dir / "ray" / "mlengine-k-3" / "logs").exists()
    assert {path.name for path in locks.glob("[er]*")} & (in_use | others) == in_use | {"env-e.lock"}
    assert not (locks / "ray-mlengine-killed-1.lock").exists()


def test_a_lock_file_is_kept_until_the_process_of_a_killed_actor_has_ended(
    make: Callable[..., ReplicaHost], node_dir: Path
) -> None:
    chief = make(SLEEP)
    chief.start({"chief": [address(chief)], "worker": ["127.0.0.1:1"]}, CHIEF_PORTS)
    until(lambda: b"up" in chief.poll()["output"], "the trainer")
    in_use = {"ray-mlengine-k-3.lock", "ray-k-chief-0.lock"}
    # Simulates a killed actor: the actor's own descriptors are closed, but those of the guard stay open.
    for lock in (chief._in_use, chief._turn):
        assert lock is not None
        lock.give_back()
    prune(node_dir)
    assert {path.name for path in (node_dir / "locks").glob("ray-*")} == in_use
    chief.end()
    until(lambda: chief.poll()["exit_code"] is not None, "the end of the processes")
    until(lambda: prune(node_dir) is not None and not list((node_dir / "locks").glob("ray-*")), "no lock files")


def test_a_job_leaves_no_files(make: Callable[..., ReplicaHost], node_dir: Path) -> None:
    chief, worker = make("print(1)"), make("print(1)", "worker")
    addresses = {"chief": [address(chief)], "worker": [address(worker)]}
    for host in (chief, worker):
        host.start(addresses, CHIEF_PORTS)
        output(host)
        host.clean()
    assert list((node_dir / "ray").iterdir()) == []
