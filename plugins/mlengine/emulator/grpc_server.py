"""Vertex AI's JobService over gRPC, for clients that speak nothing else: the same methods as over REST.

Google's asynchronous client and the Google provider's triggers are such. Only imported where it is asked for: gRPC and
the generated messages cost seconds. A reset connection is told as UNAVAILABLE, which is what a client makes of one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mlengine.core.errors import BackendUnavailableError, MlengineError, ServiceRefusalError
from mlengine.emulator.effects import Effects
from mlengine.emulator.faults import Fault, Script
from mlengine.emulator.http import Request
from mlengine.emulator.routes import Routes

_SERVICE = "google.cloud.aiplatform.v1.JobService"


@dataclass(frozen=True)
class _Method:
    """One method: its messages, and how its request is written as over REST."""

    takes: Any
    gives: Any
    verb: str
    tail: str = ""

    def request(self, message: Any) -> tuple[str, Request]:
        """Path and request as the REST face has them."""
        from google.protobuf import json_format

        data: dict[str, Any] = json_format.MessageToDict(message)
        parent, name = data.pop("parent", None), data.pop("name", None)
        path = f"/v1/{name or f'{parent}/customJobs'}{self.tail}"
        body = json_format.MessageToJson(message.custom_job).encode() if "customJob" in data else b""
        data.pop("customJob", None)
        return path, Request({}, {key: str(value) for key, value in data.items()}, body)


class GrpcServer:
    """:param port: on ``host``; 0 takes a free one."""

    def __init__(self, routes: Routes, script: Script, effects: Effects, *, host: str, port: int = 0) -> None:
        import grpc  # type: ignore[import-untyped,unused-ignore]

        self._routes, self._script, self._effects = routes, script, effects
        self._server = grpc.server(ThreadPoolExecutor(8))
        handlers = {name: self._handler(name, method) for name, method in _methods().items()}
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, handlers)])
        try:
            self.port = int(self._server.add_insecure_port(f"{host}:{port}"))
        except RuntimeError as error:
            raise BackendUnavailableError(f"port {port} on {host} cannot be taken: {error}") from error
        self.target = f"{host}:{self.port}"

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=1).wait()

    def _handler(self, name: str, method: _Method) -> Any:
        import grpc  # type: ignore[import-untyped,unused-ignore]

        def serve(message: Any, context: Any) -> Any:
            return self._serve(name, method, message, context)

        return grpc.unary_unary_rpc_method_handler(
            serve,
            request_deserializer=method.takes.FromString,
            response_serializer=method.gives.SerializeToString,
        )

    def _serve(self, name: str, method: _Method, message: Any, context: Any) -> Any:
        from google.protobuf import json_format

        struck = {fault.action: fault for fault in self._script.strike(name)}
        self._before(struck, context)
        path, request = method.request(message)
        try:
            route, parts = self._routes.find(method.verb, path)
            stuck = "stick" in struck
            answer = route.handler(Request(parts, request.query, request.body, stuck=stuck))
            for fault in struck.values():
                answer = self._effects.apply(fault, answer)
        except MlengineError as error:
            status = error.status if isinstance(error, ServiceRefusalError) else "UNAVAILABLE"
            _abort(context, status, error.message)
        if struck.keys() & {"lose", "cut"}:
            _abort(context, "UNAVAILABLE", "connection reset by peer")
        return json_format.ParseDict(answer, method.gives())

    def _before(self, struck: Mapping[str, Fault], context: Any) -> None:
        if "delay" in struck:
            time.sleep(struck["delay"].seconds)
        if "status" in struck:
            _abort(context, struck["status"].status, struck["status"].message)
        if "reset" in struck:
            _abort(context, "UNAVAILABLE", "connection reset by peer")


def _abort(context: Any, status: str, message: str) -> None:
    import grpc  # type: ignore[import-untyped,unused-ignore]

    context.abort(grpc.StatusCode[status], message)


def _methods() -> dict[str, _Method]:
    from google.cloud.aiplatform_v1.types import custom_job, job_service, operation  # noqa: TID251 - the served messages
    from google.longrunning import operations_pb2  # type: ignore[import-untyped,unused-ignore]
    from google.protobuf import empty_pb2

    def pb(kind: Any) -> Any:
        return type(kind.pb(kind()))

    pb(operation.DeleteOperationMetadata)  # known from here on to whoever reads an operation's Any
    job = pb(custom_job.CustomJob)
    return {
        "CreateCustomJob": _Method(pb(job_service.CreateCustomJobRequest), job, "POST"),
        "GetCustomJob": _Method(pb(job_service.GetCustomJobRequest), job, "GET"),
        "ListCustomJobs": _Method(pb(job_service.ListCustomJobsRequest), pb(job_service.ListCustomJobsResponse), "GET"),
        "CancelCustomJob": _Method(pb(job_service.CancelCustomJobRequest), empty_pb2.Empty, "POST", ":cancel"),
        "DeleteCustomJob": _Method(pb(job_service.DeleteCustomJobRequest), operations_pb2.Operation, "DELETE"),
    }
