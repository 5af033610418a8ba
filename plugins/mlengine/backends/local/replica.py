"""One replica of a job: its process, its log and its restarts. The supervisor decides when it is restarted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlengine.backends.local.gpu_reservation import ReservedGpu
from mlengine.backends.local.ports import Port
from mlengine.core.spec import Role
from mlengine.runtime import processes
from mlengine.runtime.processes import Process


@dataclass
class Replica:
    """A process of the cluster, in its own session.

    :param port: the port in ``TF_CONFIG``; ``None`` if no other replica connects to this one.
    :param stderr_log: the log of stderr; ``None`` if stderr goes to ``log``.
    :param more_ports: other ports that it may use (:mod:`mlengine.runtime.rendezvous`).
    :param gpus: its GPUs, which it keeps reserved while it runs.
    :param exit_code: the exit code of its last process, once that has ended.
    :param restart_at: monotonic time of the next start, while a restart is pending.
    """

    role: Role
    index: int
    command: list[str]
    env: Mapping[str, str]
    scratch: Path
    log: Path
    port: Port | None = None
    stderr_log: Path | None = None
    more_ports: tuple[Port, ...] = ()
    gpus: Sequence[ReservedGpu] = ()
    restarts: int = 0
    exit_code: int | None = None
    restart_at: float | None = None
    began: float = 0.0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    identity: Process | None = None

    @property
    def name(self) -> str:
        return f"{self.role.value}-{self.index}"

    @property
    def running(self) -> bool:
        return self.process is not None

    @property
    def waiting(self) -> bool:
        return self.restart_at is not None

    def start(self) -> None:
        """Start the process.

        :raises OSError: the interpreter cannot be run.
        """
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        for port in self._ports():
            port.release()
        parent = os.getpid()
        with self.log.open("ab") as sink, (self.stderr_log or self.log).open("ab") as stderr:
            _end_line(self.log, sink.fileno())
            if self.stderr_log is not None:
                _end_line(self.stderr_log, stderr.fileno())
            self.process = subprocess.Popen(
                self.command,
                cwd=self.scratch,
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=stderr,
                start_new_session=True,
                pass_fds=[descriptor for it in self.gpus for descriptor in it.descriptors],
                # Safe: the launcher is single-threaded.
                preexec_fn=lambda: processes.die_with_parent(parent),  # noqa: PLW1509
            )
        self.identity = Process.of(self.process.pid)
        self.exit_code, self.restart_at, self.began = None, None, time.monotonic()

    def taken_port(self) -> Port | None:
        """A port of this replica that another program uses. Call this only after the replica has ended."""
        return next((port for port in self._ports() if port.taken()), None)

    def poll(self) -> int | None:
        """The exit code. Only the first call after the process and its children have ended returns it."""
        if self.process is None or not _ended(self.process):
            return None
        # Until it is reaped, its pid and its process group cannot be reused.
        self._kill_group()
        self.exit_code = self.process.wait()
        self.process = None
        return self.exit_code

    def terminate(self) -> None:
        """Send SIGTERM to the process only, as in a container: it may need its children to save its work."""
        if self.process is not None:
            self._signal(signal.SIGTERM)
            # A stopped process would not receive the signal before the SIGKILL.
            self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL to the process and everything in its group."""
        if self.process is not None:
            self._kill_group()

    def to_json(self) -> dict[str, Any]:
        return {
            "replica": self.name,
            "process": None if self.identity is None or not self.running else self.identity.to_json(),
            "address": None if self.port is None else self.port.address,
            "restarts": self.restarts,
            "exit_code": self.exit_code,
        }

    def _ports(self) -> tuple[Port, ...]:
        return self.more_ports if self.port is None else (self.port, *self.more_ports)

    def _signal(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def _kill_group(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _end_line(log: Path, descriptor: int) -> None:
    """End the log's last line if the replica was killed while writing it: a restarted replica appends to that log."""
    size = log.stat().st_size
    if size:
        with log.open("rb") as file:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                os.write(descriptor, b"\n")
