"""The service as an HTTP server on loopback, from a thread: in a test, or in the process of ``mlengine serve``."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlengine.backends import TrainingBackend
from mlengine.core.errors import BackendUnavailableError
from mlengine.emulator.app import App
from mlengine.emulator.effects import Effects
from mlengine.emulator.engine import Engine
from mlengine.emulator.faults import Fault, Script
from mlengine.emulator.grpc_server import GrpcServer
from mlengine.emulator.routes import Routes
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

START_SECONDS = 30.0


class Service:
    """A training service.

    :param backend: where jobs run.
    :param folder: what it remembers; started again on the same folder, it has the same jobs.
    :param storage: where it puts the one package of its own.
    :param bucket: where jobs that name no bucket leave their logs.
    :param port: on ``host``; 0 takes a free one.
    :param grpc_port: likewise, for Vertex AI's methods over gRPC; ``None`` serves none.
    """

    def __init__(
        self,
        backend: TrainingBackend,
        folder: Path,
        *,
        storage: Storage,
        bucket: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        grpc_port: int | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        self.engine = Engine(backend, folder)
        self.script = Script(faults)
        self._transports: dict[Any, Any] = {}
        routes = Routes(self.engine, storage, bucket, self.script)
        effects = Effects(self.engine)
        self._app = App(routes, self.script, effects, self._reset)
        self.grpc: GrpcServer | None = None
        if grpc_port is not None:
            self.grpc = GrpcServer(routes, self.script, effects, host=host, port=grpc_port)
        self._socket = _listen(host, port)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self._server: Any = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Serve from a thread; returns when it answers.

        :raises BackendUnavailableError: it does not.
        """
        self._thread = threading.Thread(target=self._run, name="mlengine-serve", daemon=True)
        self._thread.start()
        until = time.monotonic() + START_SECONDS
        while self._server is None or not self._server.started:
            if time.monotonic() > until or not self._thread.is_alive():
                raise BackendUnavailableError(f"the service on {self.url} did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop serving; jobs go on."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(START_SECONDS)

    def _run(self) -> None:
        import uvicorn

        config = uvicorn.Config(
            self._app, http=_protocol(self._transports), ws="none", lifespan="off", log_config=None, access_log=False,
            timeout_keep_alive=60, timeout_graceful_shutdown=5,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self.engine.start()
        if self.grpc is not None:
            self.grpc.start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            if self.grpc is not None:
                self.grpc.stop()
            self.engine.stop()
            self._socket.close()

    def _reset(self, client: Any) -> None:
        """End a connection with RST, not FIN: the client must see that something broke."""
        transport = self._transports.get(tuple(client))
        if transport is None:
            return
        raw = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise BackendUnavailableError(
            f"port {port} on {host} cannot be taken: {error}", remedy="choose another --port, or 0 for a free one"
        ) from error
    listener.listen(128)
    return listener


def _protocol(transports: dict[Any, Any]) -> Any:
    """The HTTP/1.1 of uvicorn, which leaves each connection's transport where a fault can find it."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if self.client is not None:
                transports[tuple(self.client)] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            if self.client is not None:
                transports.pop(tuple(self.client), None)
            super().connection_lost(exc)

    return Protocol
