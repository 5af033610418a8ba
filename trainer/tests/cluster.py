"""Real replicas for the tests: processes with ``TF_CONFIG`` on loopback, which a test can kill and restart."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests import processes
from tests.processes import TRAINER
from trainer import devices
from trainer.errors import UsageError

# A limit for hanging tests, not for slow ones: the machine may be busy with other tests.
DEADLINE = 900.0


class Replica:
    """One replica of the cluster. Each time it is started, it gets a new process and a new log."""

    def __init__(self, name: str, folder: Path, arguments: list[str], env: Mapping[str, str]) -> None:
        self.name, self._folder, self._arguments, self._env = name, folder, arguments, dict(env)
        self._process: BaseProcess | None = None
        self._life = 0

    def start(self) -> Self:
        self._life += 1
        self._log_path.touch()
        self._process = processes.start(self._arguments, self._env, self._folder, self._log_path)
        return self

    @property
    def starts(self) -> int:
        return self._life

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """The log of the current process."""
        return self._log_path.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, and wait until the process has exited."""
        if self.running:
            self.send(signal.SIGKILL)
        assert self._process is not None
        self._process.join(30)
        assert not self.running

    def wait(self, deadline: float = DEADLINE) -> int:
        """Wait for the process, and return its exit code. Fails with its log if it does not exit in time."""
        assert self._process is not None
        self._process.join(deadline)
        code = self._process.exitcode
        if code is None:
            raise AssertionError(f"{self.name} did not end in {deadline} s\n{self.tail()}")
        return code

    def wait_log(self, pattern: str, deadline: float = DEADLINE) -> re.Match[str]:
        """Wait until the log of the current process matches. Fails if the process exits without a match."""
        end = time.monotonic() + deadline
        while True:
            over = not self.running
            if found := re.search(pattern, self.log):
                return found
            if over or time.monotonic() > end:
                raise AssertionError(f"{self.name}: no {pattern!r} in its log\n{self.tail()}")
            time.sleep(0.1)

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.splitlines()[-lines:])

    @property
    def _log_path(self) -> Path:
        return self._folder / f"{self.name.replace('/', '-')}.{self._life}.log"


class ClusterOfProcesses:
    """A cluster of replicas, as a context manager that kills the processes that it started.

    ``with ClusterOfProcesses(folder, dataset, worker=2, ps=1) as cluster: …``
    """

    def __init__(
        self,
        folder: Path,
        dataset: str | Path,
        *args: str,
        job: str | None = None,
        chief_name: str = "chief",
        worker: int = 0,
        ps: int = 0,
        evaluator: int = 0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.job_dir = job or str(folder / "job")
        counts = {chief_name: 1, "worker": worker, "ps": ps, "evaluator": evaluator}
        ports = iter(free_ports(sum(counts.values())))
        self.addresses = {
            role: [f"127.0.0.1:{next(ports)}" for _ in range(count)] for role, count in counts.items() if count
        }
        self.replicas: dict[str, Replica] = {}
        single = list(self.addresses) == [chief_name] and not env
        for role, nodes in self.addresses.items():
            for index in range(len(nodes)):
                config = {"cluster": self.addresses, "task": {"type": role, "index": index}}
                settings = environment(env) | ({} if single else {"TF_CONFIG": json.dumps(config)})
                arguments = ["--dataset", str(dataset), *args, "--job-dir", self.job_dir]
                name = f"{role}/{index}"
                self.replicas[name] = Replica(name, folder, arguments, settings)
        self.chief = self.replicas[f"{chief_name}/0"]

    def __getitem__(self, name: str) -> Replica:
        return self.replicas[name]

    def start(self, *names: str) -> Self:
        for name in names or self.replicas:
            self.replicas[name].start()
        return self

    def wait(self) -> dict[str, int]:
        """Wait for all replicas, and return their exit codes."""
        return {name: replica.wait() for name, replica in self.replicas.items()}

    def listening(self) -> list[str]:
        """The addresses that still accept connections."""
        return [address for nodes in self.addresses.values() for address in nodes if listens(address)]

    def metrics(self) -> list[dict[str, Any]]:
        lines = Path(self.job_dir, "train", "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def progress(self) -> dict[str, Any]:
        return dict(json.loads(Path(self.job_dir, "train", "progress.json").read_text()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for replica in self.replicas.values():
            if replica.running:
                replica.kill()
            if kind is not None and replica.starts:
                sys.stderr.write(f"--- {replica.name}\n{replica.tail()}\n")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a replica: that of the tests, with the trainer on ``PYTHONPATH``.

    ``PYTHONDONTWRITEBYTECODE`` is removed, so that bytecode is cached.
    """
    kept = {name: value for name, value in os.environ.items() if name not in ("TF_CONFIG", "PYTHONDONTWRITEBYTECODE")}
    return {**kept, "PYTHONPATH": str(TRAINER), **(extra or {})}


def require_bfloat16() -> None:
    """Skip the test if this machine does not compute in bfloat16."""
    try:
        devices.compute_type("bfloat16")
    except UsageError:
        pytest.skip("this CPU does not compute in bfloat16")


def free_ports(count: int) -> list[int]:
    """Free ports below the ephemeral range, so that no connection takes the port of a replica that is down."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
    return found


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
