"""Reserves free ports for the replicas until each replica starts.

The ports are below the range of ephemeral ports, so that no outgoing connection takes one while a replica is still
importing its libraries. A file lock on each port keeps other jobs of this machine away.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

from mlengine.core.errors import BackendUnavailableError
from mlengine.runtime.file_lock import FileLock

HOST = "127.0.0.1"
_RANGE = (20000, 32000)


class Port:
    """A port that is bound until :meth:`release`, and locked against other jobs until :meth:`give_back`."""

    def __init__(self, host: str, number: int, holder: socket.socket, lock: FileLock) -> None:
        self.host = host
        self.number = number
        self._holder = holder
        self._lock = lock

    @property
    def address(self) -> str:
        return f"{self.host}:{self.number}"

    def release(self) -> None:
        """Close the socket, so that the replica can bind the port. The call can be repeated safely."""
        self._holder.close()

    def give_back(self) -> None:
        self._holder.close()
        self._lock.give_back()

    def taken(self) -> bool:
        """Whether another program is bound to the port. Call this only after the port's replica has ended."""
        probe = _bind(self.host, self.number, lingering=True)
        if probe is None:
            return True
        probe.close()
        return False


def take(count: int, locks: Path, host: str = HOST) -> list[Port]:
    """Reserve ``count`` ports that no process uses.

    :param locks: the directory of the locks that keep other jobs of this machine away.
    :param host: the address to bind; by default loopback.
    :raises BackendUnavailableError: there are not enough free ports.
    """
    ports: list[Port] = []
    candidates = random.sample(range(*_RANGE), 2000)
    for number in candidates:
        if len(ports) == count:
            break
        lock = FileLock.take(locks / f"port-{number}.lock")
        if lock is None:
            continue
        holder = _bind(host, number)
        if holder is None:
            lock.give_back()
            continue
        ports.append(Port(host, number, holder, lock))
    if len(ports) < count:
        for port in ports:
            port.give_back()
        raise BackendUnavailableError(f"no {count} free ports between {_RANGE[0]} and {_RANGE[1]}")
    return ports


def _bind(host: str, number: int, *, lingering: bool = False) -> socket.socket | None:
    """Bind the port; ``None`` if the port is in use.

    :param lingering: ignore connections in TIME_WAIT (SO_REUSEADDR). Two processes that both ignore them can bind the
        same port, so a process that reserves the port must not.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(lingering))
    try:
        holder.bind((host, number))
    except OSError:
        holder.close()
        return None
    return holder
