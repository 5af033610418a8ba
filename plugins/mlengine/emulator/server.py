"""Runs the emulator: the HTTP server in a thread, the gRPC server if requested, and the engine."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mlengine.backends import TrainingBackend
from mlengine.core.errors import EmulatorError
from mlengine.emulator import listener, state_dir
from mlengine.emulator.adapter import default_bucket
from mlengine.emulator.app import App
from mlengine.emulator.effects import Effects
from mlengine.emulator.engine import Engine
from mlengine.emulator.faults import Fault, FaultScript
from mlengine.emulator.grpc_server import GrpcServer
from mlengine.emulator.routes import Routes
from mlengine.storage.client import Storage

START_SECONDS = 30.0


class Emulator:
    """The emulator of Vertex AI's and ML Engine's training APIs.

    :param backend: the backend that runs the jobs.
    :param folder: the state directory. A new emulator with the same directory has the same jobs.
    :param storage: the client for uploading the package of the replica adapter.
    :param bucket: the bucket for the logs of jobs that name no bucket.
    :param host: the address to listen on.
    :param port: the HTTP port; 0 selects a free one.
    :param grpc_port: the gRPC port; 0 selects a free one, ``None`` disables gRPC.
    :param faults: scripted faults.
    :raises EmulatorError: a port or the state directory is in use, or a parameter is invalid.
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
        bucket = default_bucket(bucket)
        if grpc_port and grpc_port == port:
            raise EmulatorError(f"HTTP and gRPC have the same port {port}", hint="choose another --grpc-port")
        self.grpc: GrpcServer | None = None
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._transports: dict[Any, Any] = {}
        with ExitStack() as stack:
            stack.enter_context(state_dir.locked(folder))
            self._socket = stack.enter_context(listener.listen(host, port))
            self.host, self.port = host, int(self._socket.getsockname()[1])
            self.engine = Engine(backend, folder)
            self.script = FaultScript(faults)
            effects = Effects(self.engine)
            routes = Routes(self.engine, storage, bucket, self.script)
            self._app = App(routes, self.script, effects, self._reset)
            if grpc_port is not None:
                self.grpc = GrpcServer(routes, self.script, effects, host=host, port=grpc_port)
                stack.callback(self.grpc.stop)
            self._resources = stack.pop_all()

    @property
    def url(self) -> str:
        """The base URL of all REST APIs."""
        return f"http://{listener.address_of(self.host, self.port)}"

    def start(self) -> None:
        """Start the servers and the engine. Returns once the emulator accepts requests.

        :raises EmulatorError: the HTTP server did not start.
        """
        self.engine.start()
        self._resources.callback(self.engine.stop)
        if self.grpc is not None:
            self.grpc.start()
        self._thread = threading.Thread(target=self._serve, name="mlengine-emulator", daemon=True)
        self._thread.start()
        self._resources.callback(self._stop_http)
        deadline = time.monotonic() + START_SECONDS
        while self._server is None or not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise EmulatorError(f"the HTTP server on {self.url} did not start", hint="see the log")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the servers and release the ports and the state directory.

        Jobs continue. May be called more than once.
        """
        self._resources.close()

    def _stop_http(self) -> None:
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(START_SECONDS)

    def _serve(self) -> None:
        import uvicorn

        config = uvicorn.Config(
            self._app, http=_protocol(self._transports), ws="none", lifespan="off", log_config=None, access_log=False,
            timeout_keep_alive=60, timeout_graceful_shutdown=5,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._server.run(sockets=[self._socket])

    def _reset(self, client: Any) -> None:
        """Close a connection with RST instead of FIN, so that the client gets an error."""
        transport = self._transports.get(tuple(client))
        if transport is None:
            return
        raw = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def _protocol(transports: dict[Any, Any]) -> Any:
    """Uvicorn's HTTP/1.1 protocol, which also records each connection's transport for :meth:`Emulator._reset`."""
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
