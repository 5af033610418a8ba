"""Vertex AI's JobService and PipelineService over gRPC, with the same methods as over REST.

Google's asynchronous client and the Google provider's triggers have no REST transport. A connection that a fault resets
is reported as UNAVAILABLE, as gRPC clients report it. This module is imported only if gRPC is enabled, because gRPC and
the generated messages take seconds to import.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mlengine.core.errors import EmulatorError, MlengineError
from mlengine.emulator import listener
from mlengine.emulator.effects import Effects
from mlengine.emulator.faults import Fault, FaultScript
from mlengine.emulator.field_errors import snake
from mlengine.emulator.http import Request, as_dict, error_details, status_of
from mlengine.emulator.routes import Routes

_SERVICES = ("google.cloud.aiplatform.v1.JobService", "google.cloud.aiplatform.v1.PipelineService")

_QUERY = {"page_size": "pageSize", "page_token": "pageToken", "read_mask": "readMask"}


@dataclass(frozen=True)
class _Method:
    """One gRPC method and its REST equivalent.

    :param request_type: the message class of the request.
    :param response_type: the message class of the response.
    :param verb: the HTTP method of the REST equivalent.
    :param collection: the part of the REST path that names the collection.
    :param suffix: the end of the REST path.
    :param resource: the field of the request that is the body over REST.
    """

    request_type: Any
    response_type: Any
    verb: str
    collection: str
    suffix: str = ""
    resource: str = ""

    def request(self, message: Any) -> tuple[str, Request]:
        """The path and the request of the equivalent REST call."""
        from google.protobuf import json_format

        data: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
        parent, name, body = data.pop("parent", None), data.pop("name", None), data.pop(self.resource, {})
        path = f"/v1/{name or f'{parent}/{self.collection}'}{self.suffix}"
        query = {_QUERY.get(key, key): str(value) for key, value in data.items()}
        return path, Request({}, query, json.dumps(body).encode())


class GrpcServer:
    """The gRPC server.

    :param port: 0 selects a free port.
    :raises EmulatorError: the port is in use or out of range.
    """

    def __init__(self, routes: Routes, script: FaultScript, effects: Effects, *, host: str, port: int = 0) -> None:
        import grpc  # type: ignore[import-untyped,unused-ignore]

        self._routes, self._script, self._effects = routes, script, effects
        # gRPC sets SO_REUSEPORT by default, so that a second server on the port would get some of the calls.
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        for service, methods in zip(_SERVICES, (_job_methods(), _pipeline_methods()), strict=True):
            handlers = {name: self._handler(name, method) for name, method in methods.items()}
            self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
        # Try the port first, because gRPC's own error does not say why it cannot open the port.
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
        """Release the port. Calls in progress have one second to end."""
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

        path, request = method.request(message)
        project = path.partition("projects/")[2].partition("/")[0]
        faults = {fault.action: fault for fault in self._script.match(name, project)}
        self._before(faults, context)
        try:
            route, parts = self._routes.find(method.verb, path)
            stuck, triggered = "stick" in faults, tuple(faults.values())
            request = Request(parts, request.query, request.body, stuck=stuck, faults=triggered)
            response = as_dict(route.handler(request))
            for fault in faults.values():
                response = self._effects.apply(fault, response)
        except MlengineError as error:
            _abort(context, status_of(error), error.message, error_details(error))
        if faults.keys() & {"lose", "cut"}:
            _abort(context, "UNAVAILABLE", "connection reset by peer")
        return json_format.ParseDict(response, method.response_type())

    def _before(self, faults: Mapping[str, Fault], context: Any) -> None:
        if "delay" in faults:
            time.sleep(faults["delay"].seconds)
        for refusal in filter(None, (fault.refusal for fault in faults.values())):
            _abort(context, *refusal)
        if "reset" in faults:
            _abort(context, "UNAVAILABLE", "connection reset by peer")


def _abort(context: Any, status: str, message: str, details: Sequence[Mapping[str, Any]] = ()) -> None:
    import grpc  # type: ignore[import-untyped,unused-ignore]

    code = grpc.StatusCode[status]
    if details:
        from google.protobuf import json_format
        from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped,unused-ignore]

        error_details_pb2.BadRequest()  # registers the type, which a status contains as Any
        full = {"code": code.value[0], "message": message, "details": list(details)}
        value = json_format.ParseDict(full, status_pb2.Status()).SerializeToString()
        context.set_trailing_metadata((("grpc-status-details-bin", value),))
    context.abort(code, message)


def _job_methods() -> dict[str, _Method]:
    from google.cloud.aiplatform_v1.types import custom_job, job_service  # noqa: TID251 - the API's messages

    return _methods("CustomJob", _pb(custom_job.CustomJob), job_service)


def _pipeline_methods() -> dict[str, _Method]:
    from google.cloud.aiplatform_v1.types import pipeline_service, training_pipeline  # noqa: TID251 - as above

    return _methods("TrainingPipeline", _pb(training_pipeline.TrainingPipeline), pipeline_service)


def _methods(kind: str, message: Any, service: Any) -> dict[str, _Method]:
    """The methods of a type of resource.

    :param message: the message class of the resource.
    :param service: the module with the service's request and response classes.
    """
    from google.cloud.aiplatform_v1.types import operation  # noqa: TID251 - the API's messages
    from google.longrunning import operations_pb2  # type: ignore[import-untyped,unused-ignore]
    from google.protobuf import empty_pb2

    _pb(operation.DeleteOperationMetadata)  # registers the type, which an operation contains as Any
    name = f"{kind[0].lower()}{kind[1:]}"
    listing = _pb(getattr(service, f"List{kind}sResponse"))
    methods = {
        f"Create{kind}": (message, "POST", "", snake(name)),
        f"Get{kind}": (message, "GET", "", ""),
        f"List{kind}s": (listing, "GET", "", ""),
        f"Cancel{kind}": (empty_pb2.Empty, "POST", ":cancel", ""),
        f"Delete{kind}": (operations_pb2.Operation, "DELETE", "", ""),
    }
    return {
        method: _Method(_pb(getattr(service, f"{method}Request")), response, verb, f"{name}s", suffix, resource)
        for method, (response, verb, suffix, resource) in methods.items()
    }


def _pb(kind: Any) -> Any:
    return type(kind.pb(kind()))
