"""The actor of one replica: it prepares its node, runs the trainer as a process, and reads its output.

The driver calls :meth:`ReplicaHost.poll` every half second. If it has not called for :data:`DRIVER_TIMEOUT_SECONDS`, it
is gone or cannot be reached, and the process is ended: a lost head node leaves no trainer behind.

That time begins with the last answer that the driver has received, as its next call shows. So the driver knows, without
comparing clocks, by when a replica that it cannot reach has ended: it counts from the arrival of that answer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import mlengine
from mlengine.backends.local import gpus, ports
from mlengine.backends.local.replica_env import arguments, base_env, replica_env
from mlengine.backends.ray import bundles
from mlengine.backends.ray.guarded import Guarded
from mlengine.backends.ray.record import Stored, key_name
from mlengine.core.cluster import has_cluster
from mlengine.core.spec import Role
from mlengine.runtime import data_cache
from mlengine.runtime.extras import ACCELERATOR_COUNT, ACCELERATOR_TYPE
from mlengine.runtime.file_lock import FileLock
from mlengine.runtime.json_files import read_json
from mlengine.runtime.rendezvous import CHIEF_PORTS
from mlengine.runtime.venv import find_environment, lock_path

DRIVER_TIMEOUT_SECONDS = 30.0
CANNOT_RUN = 127  # the exit code of a process that was not started
_ADDRESSED = frozenset({Role.CHIEF, Role.WORKER, Role.PS})
LOCK_PREFIX = "ray-"  # of the lock files of jobs and replicas; prune() in prepare.py deletes those that are not in use
_LOCK_SECONDS = 20.0
# Ray sets the variable only for replicas that reserve GPUs; the others would see all GPUs of their node.
_NO_GPU = {gpus.VISIBLE: gpus.HIDE_ALL}
_DEFAULT_DIR = "~/.local/state/mlengine"


class Poll(TypedDict):
    """The news of a replica since the last poll.

    :param exit_code: set when the replica's process has ended and all its output was read.
    :param port_taken: whether another program uses the replica's port.
    """

    output: bytes
    exit_code: int | None
    port_taken: bool


class ReplicaHost:
    """One replica on one node.

    :param record: the job, as :meth:`Stored.to_bytes` returns it.
    :param host: the node's address.
    """

    def __init__(self, record: bytes, role: str, index: int, host: str | None = None) -> None:
        self._stored = Stored.from_bytes(record)
        self._role, self._index = Role(role), index
        self._host = host or _node_address()
        self._node_dir = Path(self._stored.settings.node_dir or _DEFAULT_DIR).expanduser()
        self._root = self._node_dir / "ray" / self._stored.name
        # The lock keeps the job's files on this node: see prune() in prepare.py.
        self._in_use = FileLock.take(job_lock(self._node_dir, self._stored.name), wait=_LOCK_SECONDS, shared=True)
        if self._in_use is None:
            raise RuntimeError(f"another process removes the files of {self._stored.name}")
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        spec = self._stored.submission.spec
        accelerators = bundles.accelerators(spec, self._stored.settings.resources)
        self._accelerator = accelerators[spec.replicas.index((self._role, index))]
        self._command: Guarded | None = None
        self._port: ports.Port | None = None
        self._chief_ports: list[ports.Port] = []
        self._environment: FileLock | None = None
        self._turn: FileLock | None = None
        self._data: FileLock | None = None
        self._python: Path | None = None
        self._contact = self._answered = time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def where(self) -> str:
        """The node's address."""
        return self._host

    def prepare(self) -> None:
        """Start building the trainer's environment on this node; :meth:`poll` returns an exit code when it is done."""
        self._step_file.unlink(missing_ok=True)
        package = str(Path(mlengine.__file__).parent.parent)
        self._run(
            [sys.executable, "-P", "-m", "mlengine.backends.ray.prepare", self._stored.uri, str(self._node_dir),
             str(self._step_file)],
            {**os.environ, **self._accelerator, "PYTHONPATH": package},
            "prepare",
            self._root,
        )  # fmt: skip

    def prepared(self) -> dict[str, Any]:
        """The result of the process :mod:`mlengine.backends.ray.prepare`; empty if the process was killed."""
        return read_json(self._step_file) or {}

    def take(self, digest: str) -> str | None:
        """Wait until no earlier process of this replica is left here, lock the environment, and reserve a port.

        :return: the replica's address; ``""`` if other replicas do not connect to it; ``None`` if there is no
            environment.
        :raises RuntimeError: an earlier process does not end.
        """
        if self._turn is None:
            # A process of an earlier actor or attempt, which has died, may still be saving its work on this node.
            self._turn = FileLock.take(
                self._node_dir / "locks" / f"{LOCK_PREFIX}{key_name(self._stored.submission.key)}-{self.name}.lock",
                wait=self._stored.settings.termination_grace_seconds + _LOCK_SECONDS,
            )
        if self._turn is None:
            raise RuntimeError(f"an earlier process of {self.name} does not end")
        self._environment = FileLock.take(lock_path(self._node_dir, digest), wait=10.0, shared=True)
        environment = find_environment(self._node_dir, digest)
        if environment is None or self._environment is None:
            return None
        self._python = environment.python
        self._data = self._data or data_cache.use(self._node_dir)
        if self._role is Role.CHIEF and not self._chief_ports:
            self._chief_ports = ports.take(len(CHIEF_PORTS), self._node_dir / "locks", self._host)
        if self._role not in _ADDRESSED or not has_cluster(self._stored.submission.spec):
            return ""
        if self._port is None:
            self._port = ports.take(1, self._node_dir / "locks", self._host)[0]
        return self._port.address

    def chief_ports(self) -> list[int]:
        """The chief's other ports (:mod:`mlengine.runtime.rendezvous`), after :meth:`take`."""
        return [port.number for port in self._chief_ports]

    def start(self, addresses: Mapping[str, Sequence[str]], chief_ports: Sequence[int]) -> None:
        """Start the trainer, or start it again after it has ended.

        :param addresses: the addresses of all replicas, by role.
        :param chief_ports: see :meth:`chief_ports`.
        :raises OSError: no process can be started.
        """
        if self._python is None or self._turn is None:
            raise RuntimeError("start() before take()")
        submission = self._stored.submission
        for port in self._ports:
            port.release()
        scratch = self._root / "work" / self.name
        scratch.mkdir(parents=True, exist_ok=True)
        hosts = {address.rpartition(":")[0] for found in addresses.values() for address in found}
        env = replica_env(
            self._accelerator | _without_proxy(base_env(self._root, self._node_dir, submission, self._python), hosts),
            submission,
            {Role(role): found for role, found in addresses.items()},
            role=self._role,
            index=self._index,
            scratch=scratch,
            chief_ports=chief_ports,
            devices=None if self._accelerator else _NO_GPU,
            accelerator=(self._accelerator.get(ACCELERATOR_TYPE, ""), int(self._accelerator.get(ACCELERATOR_COUNT, 0))),
        )
        command = [str(self._python), "-m", submission.spec.module, *arguments(submission, env)]
        self._run(command, env, self.name, scratch, self._turn)

    def poll(self) -> Poll:
        """The output since the last call, and the exit code if the process has ended."""
        # The driver calls again only after it has received the last answer.
        self._contact, self._answered = self._answered, time.monotonic()
        if self._command is None:
            # The process could not be started, and the driver ends the job.
            return Poll(output=b"", exit_code=CANNOT_RUN, port_taken=False)
        code = self._command.poll()
        output = self._command.read()
        if code is None or output:
            return Poll(output=output, exit_code=None, port_taken=False)
        self._command.close()
        self._command = None
        taken = code != 0 and any(port.taken() for port in self._ports)
        return Poll(output=b"", exit_code=code, port_taken=taken)

    def end(self) -> None:
        """End the process with SIGTERM, and with SIGKILL after the grace period."""
        if self._command is not None:
            self._command.end()

    def clean(self) -> None:
        """Remove the replica's files from the node. The last replica of the job also removes the job's files."""
        shutil.rmtree(self._root / "work" / self.name, ignore_errors=True)
        for path in (self._root / "logs" / f"{self.name}.log", self._root / "logs" / "prepare.log", self._step_file):
            path.unlink(missing_ok=True)
        for folder in (self._root / "work", self._root / "logs", self._root):
            with contextlib.suppress(OSError):
                folder.rmdir()

    @property
    def name(self) -> str:
        return f"{self._role.value}-{self._index}"

    @property
    def _ports(self) -> list[ports.Port]:
        return [*self._chief_ports, *([self._port] if self._port else [])]

    @property
    def _step_file(self) -> Path:
        return self._root / f"prepare-{self.name}.json"

    def _run(self, command: list[str], env: Mapping[str, str], name: str, cwd: Path, *locks: FileLock) -> None:
        self._contact = self._answered = time.monotonic()
        log = self._root / "logs" / f"{name}.log"
        held = [lock for lock in (self._in_use, self._environment, self._data, *locks) if lock is not None]
        grace = self._stored.settings.termination_grace_seconds
        self._command = Guarded(command, env, cwd, log, grace=grace, locks=held)

    def _watch(self) -> None:
        """End the process when the driver is gone."""
        while True:
            time.sleep(1.0)
            command = self._command
            if command is not None and time.monotonic() - self._contact > DRIVER_TIMEOUT_SECONDS:
                command.end()


def job_lock(node_dir: Path, name: str) -> Path:
    """The lock file of a job on a node. The lock is held, shared, while the job has an actor or a process there."""
    return node_dir / "locks" / f"{LOCK_PREFIX}{name}.lock"


def _without_proxy(env: dict[str, str], hosts: set[str]) -> dict[str, str]:
    """Exclude ``hosts`` from the proxy in the variables ``env``: gRPC would use it even between replicas."""
    if any(name.lower().endswith("_proxy") and name.lower() != "no_proxy" for name in env):
        for name in ("NO_PROXY", "no_proxy"):
            own = [host for host in env.get(name, "").split(",") if host]
            env[name] = ",".join([*own, *sorted(hosts - set(own))])
    return env


def _node_address() -> str:
    import ray

    return str(ray.util.get_node_ip_address())
