"""The application at ``/mlengine``. Every route requires Airflow's login; every response has the security headers."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from importlib.resources import files
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response

from mlengine.core.errors import (
    BackendError,
    MlengineError,
    ObjectMissingError,
    PublishError,
    StorageForbiddenError,
)
from mlengine.web import guard, routes

log = logging.getLogger(__name__)

# Airflow's API has 40 threads for all its routes. If the bucket does not respond, the page must not occupy all of them.
MAX_CONCURRENT_REQUESTS = 12
MAX_BODY_BYTES = 2 << 20  # a log cursor has up to 400,000 characters
BODY_SECONDS = 10.0
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_STATIC = ("page.html", "page.css", "page.js", "draw.js")


class AsciiResponse(JSONResponse):
    """A JSON response in ASCII, because a job's text may contain lone surrogates, which UTF-8 cannot encode."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class SecurityMiddleware:
    """ASGI middleware: adds headers, and rejects more than :data:`MAX_CONCURRENT_REQUESTS` requests at a time.

    A request counts when it has arrived completely, so that slow clients do not lock the others out.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._slots = threading.Semaphore(MAX_CONCURRENT_REQUESTS)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        try:
            async with asyncio.timeout(BODY_SECONDS):
                arrived = await _arrived(receive)
        except (TimeoutError, ValueError):
            await _refuse(
                413, "the request is too large or took too long to arrive", "try again with a smaller request"
            )(scope, receive, send)
            return
        if not self._slots.acquire(blocking=False):
            await _refuse(503, "too many requests", "try again in a moment")(scope, receive, send)
            return
        try:
            await self._app(scope, _again(arrived, receive), _with_headers(send))
        finally:
            self._slots.release()


async def _arrived(receive: Any) -> dict[str, Any]:
    """The request's body in one message, or the message that the client has disconnected.

    :raises ValueError: the body is larger than :data:`MAX_BODY_BYTES`.
    """
    body = b""
    while True:
        message: dict[str, Any] = await receive()
        if message["type"] != "http.request":
            return message
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise ValueError("the body is too large")
        if not message.get("more_body"):
            return {"type": "http.request", "body": body, "more_body": False}


def _again(message: dict[str, Any], receive: Any) -> Any:
    """A ``receive`` function that returns ``message`` first."""
    messages = [message]

    async def receive_again() -> Any:
        return messages.pop() if messages else await receive()

    return receive_again


def _refuse(status: int, error: str, hint: str) -> JSONResponse:
    return JSONResponse({"error": error, "hint": hint}, status, headers=HEADERS)


def _with_headers(send: Any) -> Any:
    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            missing = [
                (name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in present
            ]
            message = {**message, "headers": [*message["headers"], *missing]}
        await send(message)

    return send_with_headers


def make_app() -> FastAPI:
    """Build the application. It has no generated API documentation, because those routes would not require a login."""
    app = FastAPI(
        title="mlengine",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        default_response_class=AsciiResponse,
        dependencies=[Depends(guard.reader)],
        exception_handlers={
            HTTPException: _http_error,
            MlengineError: _mlengine_error,
            RequestValidationError: _invalid_request,
        },
    )
    app.include_router(routes.router)
    for name in _STATIC:
        app.add_api_route(f"/{name.removesuffix('.html')}", _static(name), methods=["GET"], name=name)
    app.add_middleware(SecurityMiddleware)
    return app


def _static(name: str) -> Any:
    content = files("mlengine.web").joinpath("static", name).read_bytes()
    kind = _TYPES[name.rpartition(".")[2]]

    def serve() -> Response:
        return Response(content, media_type=kind)

    return serve


async def _http_error(request: Request, error: HTTPException) -> Response:
    """Redirect a browser without a login to the login page; otherwise answer with JSON."""
    if (
        error.status_code == 401
        and request.url.path.endswith("/page")
        and "text/html" in request.headers.get("accept", "")
    ):
        return RedirectResponse(guard.login_url(str(request.url)), 303)
    return AsciiResponse({"error": str(error.detail), "hint": ""}, error.status_code)


async def _invalid_request(_: Request, error: RequestValidationError) -> Response:
    """Name the first wrong field of a request. The page shows error and hint."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return AsciiResponse({"error": f"{field}: {first['msg']}", "hint": f"correct {field}"}, 422)


async def _mlengine_error(_: Request, error: MlengineError) -> Response:
    """Answer with the error's message and hint. The page shows both."""
    status = next((code for kind, code in _CODES.items() if isinstance(error, kind)), 400)
    if error.retryable:
        status = 503
    log.info("Request failed with status %d: %s", status, error.message)
    return AsciiResponse({"error": error.message, "hint": error.hint}, status)


_CODES: dict[type[MlengineError], int] = {
    ObjectMissingError: 404,
    StorageForbiddenError: 502,
    BackendError: 409,
    PublishError: 409,
}
