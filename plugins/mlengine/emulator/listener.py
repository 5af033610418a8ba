"""Opens the emulator's TCP ports. A port that another process uses is an error, for both HTTP and gRPC."""

from __future__ import annotations

import errno
import socket

from mlengine.core.errors import EmulatorError

MAX_PORT = 65535
_HINTS = {
    errno.EADDRINUSE: "stop the process that uses the port, choose another port, or 0 for a free one",
    errno.EADDRNOTAVAIL: "use 127.0.0.1, or another address of this machine",
    errno.EACCES: "choose a port above 1023",
}


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    :param port: 0 selects a free port.
    :raises EmulatorError: the port is out of range or in use, or the host is not an address of this machine.
    """
    family, address = _resolve(host, port)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise cannot_listen(host, port, error) from error
    return listener


def cannot_listen(host: str, port: int, error: OSError) -> EmulatorError:
    """The error for a port that cannot be opened."""
    reason = error.strerror or str(error)
    hint = _HINTS.get(error.errno or 0, "choose another host or port")
    return EmulatorError(f"cannot listen on {address_of(host, port)}: {reason}", hint=hint)


def check_port(port: int) -> int:
    """Return ``port`` if it is in range.

    :raises EmulatorError: the port is out of range.
    """
    if not 0 <= port <= MAX_PORT:
        raise EmulatorError(f"port {port} is out of range", hint=f"use 1 to {MAX_PORT}, or 0 for a free port")
    return port


def address_of(host: str, port: int) -> str:
    """``HOST:PORT``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    check_port(port)
    if not host:
        raise EmulatorError("the host is empty", hint="use 127.0.0.1")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise EmulatorError(
            f"cannot resolve the host {host!r}: {error}", hint="use 127.0.0.1, or another address of this machine"
        ) from error
    # The first result is the one that the system prefers.
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))
