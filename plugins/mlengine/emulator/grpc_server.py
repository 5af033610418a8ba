"""Vertex AI's JobService over gRPC: the same methods as over REST.

Google's asynchronous client and the Google provider's triggers have no REST transport. A connection that a fault resets
is reported as UNAVAILABLE, as gRPC clients report it. Imported only if gRPC is enabled, because gRPC and the generated
messages take seconds to import.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mlengine.core.errors import EmulatorError, MlengineError
from mlengine.emulator import listener
from mlengine.emulator.effects import Effects
from mlengine.emulator.faults import Fault, FaultScript
from mlengine.emulator.http import Request, status_of
from mlengine.emulator.routes import Routes

_SERVICE = "google.cloud.aiplatform.v1.JobService"


@dataclass(frozen=True)
class _Method:
    """One method.

    :param request_type: the message of the request.
    :param response_type: the message of the response.
    :param verb: the HTTP method of the same method over REST.
    :param suffix: the end of its path.
    """

    request_type: Any
    response_type: Any
    verb: str
    suffix: str = ""

    def request(self, message: Any) -> tuple[str, Request]:
        """The path and the request of the same call over REST."""
        from google.protobuf import json_format

        data: dict[str, Any] = json_format.MessageToDict(message)
        parent, name = data.pop("parent", None), data.pop("name", None)
        path = f"/v1/{name or f'{parent}/customJobs'}{self.suffix}"
        body = json_format.MessageToJson(message.custom_job).encode() if "customJob" in data else b""
        data.pop("customJob", None)
        return path, Request({}, {key: str(value) for key, value in data.items()}, body)


class GrpcServer:
    """The gRPC server.

    :param port: 0 selects a free port.
    :raises EmulatorError: the port is in use or out of range.
    """

    def __init__(self, routes: Routes, script: FaultScript, effects: Effects, *, host: str, port: int = 0) -> None:
        import grpc  # type: ignore[import-untyped,unused-ignore]

        self._routes, self._script, self._effects = routes, script, effects
        # gRPC sets SO_REUSEPORT by default: a second server on the port would get some of the calls.
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        handlers = {name: self._handler(name, method) for name, method in _methods().items()}
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, handlers)])
        # gRPC's own error does not say why it cannot open the port.
        listener.listen(host, port).close()
        try:
            self.port = int(self._server.add_insecure_port(listener.address_of(host, port)))
        except RuntimeError as error:
            raise EmulatorError(f"gRPC cannot listen on {host}: {error}", hint="choose another --grpc-port") from error
        self.target = listener.address_of(host, self.port)

    def start(self) -> None:
        """Accept calls."""
        self._server.start()

    def stop(self) -> None:
        """Release the port; calls in progress have a second to end."""
        self._server.stop(grace=1).wait()

    def _handler(self, name: str, method: _Method) -> Any:
        import grpc  # type: ignore[import-untyped,unused-ignore]

        def serve(message: Any, context: Any) -> Any:
            return self._serve(name, method, message, context)

        return grpc.unary_unary_rpc_method_handler(
            serve,
            request_deserializer=method.request_type.FromString,
            response_serializer=method.response_type.SerializeToString,
        )

    def _serve(self, name: str, method: _Method, message: Any, context: Any) -> Any:
        from google.protobuf import json_format

        faults = {fault.action: fault for fault in self._script.match(name)}
        self._before(faults, context)
        path, request = method.request(message)
        try:
            route, parts = self._routes.find(method.verb, path)
            stuck, triggered = "stick" in faults, tuple(faults.values())
            response = route.handler(Request(parts, request.query, request.body, stuck=stuck, faults=triggered))
            for fault in faults.values():
                response = self._effects.apply(fault, response)
        except MlengineError as error:
            _abort(context, status_of(error), error.message)
        if faults.keys() & {"lose", "cut"}:
            _abort(context, "UNAVAILABLE", "connection reset by peer")
        return json_format.ParseDict(response, method.response_type())

    def _before(self, faults: Mapping[str, Fault], context: Any) -> None:
        if "delay" in faults:
            time.sleep(faults["delay"].seconds)
        if "status" in faults:
            _abort(context, faults["status"].status, faults["status"].message)
        if "reset" in faults:
            _abort(context, "UNAVAILABLE", "connection reset by peer")


def _abort(context: Any, status: str, message: str) -> None:
    import grpc  # type: ignore[import-untyped,unused-ignore]

    context.abort(grpc.StatusCode[status], message)


def _methods() -> dict[str, _Method]:
    from google.cloud.aiplatform_v1.types import custom_job, job_service, operation  # noqa: TID251 - the API's messages
    from google.longrunning import operations_pb2  # type: ignore[import-untyped,unused-ignore]
    from google.protobuf import empty_pb2

    def pb(kind: Any) -> Any:
        return type(kind.pb(kind()))

    pb(operation.DeleteOperationMetadata)  # registers the type, which an operation contains as Any
    job = pb(custom_job.CustomJob)
    return {
        "CreateCustomJob": _Method(pb(job_service.CreateCustomJobRequest), job, "POST"),
        "GetCustomJob": _Method(pb(job_service.GetCustomJobRequest), job, "GET"),
        "ListCustomJobs": _Method(pb(job_service.ListCustomJobsRequest), pb(job_service.ListCustomJobsResponse), "GET"),
        "CancelCustomJob": _Method(pb(job_service.CancelCustomJobRequest), empty_pb2.Empty, "POST", ":cancel"),
        "DeleteCustomJob": _Method(pb(job_service.DeleteCustomJobRequest), operations_pb2.Operation, "DELETE"),
    }
