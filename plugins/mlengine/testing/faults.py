"""A proxy on loopback that injects faults into chosen HTTP requests, to test the clients of a server.

::

    with faults.before(server.url) as proxy:
        proxy.strike(faults.lose_answer(), "POST", r"/upload/", times=1)
        …                              # the client uses proxy.url
    # raises an error if a fault was not triggered, because then the test has tested nothing

Faults are applied in the order in which they were set, each for its number of requests; other requests are forwarded.
The server's address in headers and JSON is replaced by the proxy's, so that upload sessions and links use the proxy
too.

The proxy does not support TLS, HTTP/2, or bodies that do not fit in memory.
"""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from mlengine.core.errors import MlengineError

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "proxy-connection", "te"}
_UPSTREAM_SECONDS = 60.0


@dataclass(frozen=True)
class Action:
    """The action that is applied to a request. The functions below create actions."""

    kind: str
    code: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    seconds: float = 0.0
    after: int = 0


def status(code: int, body: bytes = b"{}", headers: Mapping[str, str] | None = None) -> Action:
    """Respond with ``code`` without forwarding the request."""
    return Action("status", code=code, body=body, headers=tuple((headers or {}).items()))


def reset() -> Action:
    """Reset the connection without forwarding the request."""
    return Action("reset")


def lose_answer() -> Action:
    """Forward the request, then reset the connection without a response."""
    return Action("lose_answer")


def stall(seconds: float) -> Action:
    """Wait for ``seconds``, or until :meth:`FaultProxy.release`, then reset without forwarding the request."""
    return Action("stall", seconds=seconds)


def delay(seconds: float) -> Action:
    """Wait for ``seconds``, or until :meth:`FaultProxy.release`, then forward the request."""
    return Action("delay", seconds=seconds)


def cut_body(after: int) -> Action:
    """Forward the response's headers and the first ``after`` bytes of its body, then reset."""
    return Action("cut_body", after=after)


@dataclass
class Fault:
    """An action and the requests that it applies to. ``left`` is the number of requests that it still applies to."""

    action: Action
    method: str
    path: re.Pattern[str]
    body: re.Pattern[bytes] | None
    left: int

    def matches(self, method: str, path: str, body: bytes) -> bool:
        return bool(
            self.left > 0
            and re.fullmatch(self.method, method)
            and self.path.search(path)
            and (self.body is None or self.body.search(body))
        )

    def __str__(self) -> str:
        body = f" with {self.body.pattern!r} in its body" if self.body else ""
        return f"{self.action.kind} on {self.method} {self.path.pattern}{body}: {self.left} left"


@dataclass(frozen=True)
class Request:
    """One recorded request. ``code`` is 0 if the client got no response; ``fault`` is the action that was applied."""

    method: str
    path: str
    code: int
    fault: str = ""


@dataclass
class FaultProxy:
    """A running proxy. ``url`` replaces the server's URL in clients."""

    url: str
    upstream: str
    requests: list[Request] = field(default_factory=list)
    _faults: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _released: threading.Condition = field(default_factory=threading.Condition)
    _releases: int = 0
    _ended: bool = False

    def strike(
        self, action: Action, method: str = ".*", path: str = "", *, body: bytes | None = None, times: int = 1
    ) -> None:
        """Apply ``action`` to the next ``times`` matching requests.

        :param method: a regular expression that matches the entire method.
        :param path: a regular expression that is searched in the unquoted path and query.
        :param body: a regular expression that is searched in the request's body, which has the object name of an
            upload.
        """
        pattern = None if body is None else re.compile(body, re.DOTALL)
        with self._lock:
            self._faults.append(Fault(action, method, re.compile(path), pattern, times))

    @property
    def unused(self) -> list[str]:
        """Descriptions of the faults that have not been applied as often as requested."""
        with self._lock:
            return [str(fault) for fault in self._faults if fault.left > 0]

    def release(self) -> None:
        """End the stalls and delays that are under way."""
        with self._released:
            self._releases += 1
            self._released.notify_all()

    def clear(self) -> None:
        """Delete the remaining faults and the log."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()

    def seen(self, method: str = ".*", path: str = "") -> list[Request]:
        """The logged requests that match, as in :meth:`strike`."""
        with self._lock:
            return [one for one in self.requests if re.fullmatch(method, one.method) and re.search(path, one.path)]

    def _next(self, method: str, path: str, body: bytes) -> Action | None:
        with self._lock:
            for fault in self._faults:
                if fault.matches(method, path, body):
                    fault.left -= 1
                    return fault.action
        return None

    def _hold(self, seconds: float) -> None:
        with self._released:
            before = self._releases
            self._released.wait_for(lambda: self._ended or self._releases != before, seconds)

    def _log(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)


@contextmanager
def before(upstream: str, *, strict: bool = True) -> Iterator[FaultProxy]:
    """Run a proxy on a free port of loopback for the server at ``upstream`` (``http://HOST:PORT``).

    :param strict: whether a fault that was not triggered is an error at the end of the block.
    :raises MlengineError: a fault was not triggered, and ``strict`` is true.
    """
    server = _Server(("127.0.0.1", 0), _Handler)
    proxy = FaultProxy(f"http://127.0.0.1:{server.server_address[1]}", upstream.rstrip("/"))
    server.proxy = proxy
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="fault-proxy", daemon=True)
    thread.start()
    try:
        yield proxy
        if strict and proxy.unused:
            raise MlengineError(
                f"faults that never struck: {'; '.join(proxy.unused)}",
                hint="correct what they match, or what the test does; FaultProxy.requests has what came",
            )
    finally:
        proxy._ended = True
        proxy.release()
        server.shutdown()
        server.server_close()
        server.drop_connections()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    proxy: FaultProxy

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        # The orderly shutdown of the base class is not used: it would send FIN instead of a reset.
        self._open.discard(request)
        request.close()

    def drop_connections(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # its other end has closed it in the meantime
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print no traceback: clients that close their connection are expected in tests with faults."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args: object) -> None:
        """Print nothing: the log is :attr:`FaultProxy.requests`."""

    def _serve(self) -> None:
        proxy = self.server.proxy
        body = self._body()
        path = unquote(self.path)
        action = proxy._next(self.command, path, body)
        kind = action.kind if action else ""
        if action is None or kind == "delay":
            if action:
                proxy._hold(action.seconds)
            code, headers, answer = self._forward(body)
            proxy._log(Request(self.command, path, code, kind))
            self._answer(code, headers, answer)
        elif kind == "status":
            proxy._log(Request(self.command, path, action.code, kind))
            self._answer(action.code, [("Content-Type", "application/json"), *action.headers], action.body)
        elif kind == "cut_body":
            code, headers, answer = self._forward(body)
            proxy._log(Request(self.command, path, code, kind))
            self._answer(code, headers, answer, cut=action.after)
        else:
            if kind == "lose_answer":
                self._forward(body)
            elif kind == "stall":
                proxy._log(Request(self.command, path, 0, kind))
                proxy._hold(action.seconds)
            if kind != "stall":
                proxy._log(Request(self.command, path, 0, kind))
            self._reset()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        proxy = self.server.proxy
        where = urlsplit(proxy.upstream)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=_UPSTREAM_SECONDS)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        try:
            connection.request(self.command, self.path, body=body, headers=headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            return 502, [("Content-Type", "text/plain")], f"fault proxy: {proxy.upstream}: {error}".encode()
        finally:
            connection.close()
        kept = [
            (name, value.replace(proxy.upstream, proxy.url))
            for name, value in response.getheaders()
            if name.lower() not in _HOP_BY_HOP
        ]
        if (response.getheader("Content-Type") or "").startswith("application/json") and (
            "Content-Encoding" not in response.headers
        ):
            answer = answer.replace(proxy.upstream.encode(), proxy.url.encode())
        return response.status, kept, answer

    def _answer(self, code: int, headers: list[tuple[str, str]], body: bytes, cut: int | None = None) -> None:
        self.send_response_only(code)
        for name, value in headers:
            self.send_header(name, value)
        if code >= 200 and code != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.wfile.flush()
            # The data that was sent must arrive before the reset, which would discard it.
            time.sleep(0.05)
            self._reset()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
