"""The application behind ``/mlengine``: every route behind Airflow's login, every answer with its headers."""

from __future__ import annotations

import logging
import threading
from importlib.resources import files
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request
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

# Airflow's API has 40 threads for all its routes. A bucket that does not answer must not hold them all.
AT_ONCE = 12
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


class Shield:
    """ASGI middleware: headers on every answer, and no more than :data:`AT_ONCE` requests at a time."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._places = threading.Semaphore(AT_ONCE)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if not self._places.acquire(blocking=False):
            busy = JSONResponse({"error": "busy", "hint": "try again in a moment"}, 503, headers=HEADERS)
            await busy(scope, receive, send)
            return
        try:
            await self._app(scope, receive, _with_headers(send))
        finally:
            self._places.release()


def _with_headers(send: Any) -> Any:
    async def answer(message: Any) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message["headers"]}
            missing = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in there]
            message = {**message, "headers": [*message["headers"], *missing]}
        await send(message)

    return answer


def make_app() -> FastAPI:
    """No generated documentation: its routes would answer to who is not logged in."""
    app = FastAPI(
        title="mlengine",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(guard.reader)],
        exception_handlers={HTTPException: _refused, MlengineError: _failed},
    )
    app.include_router(routes.router)
    for name in _STATIC:
        app.add_api_route(f"/{name.removesuffix('.html')}", _static(name), methods=["GET"], name=name)
    app.add_middleware(Shield)
    return app


def _static(name: str) -> Any:
    content = files("mlengine.web").joinpath("static", name).read_bytes()
    kind = _TYPES[name.rpartition(".")[2]]

    def serve() -> Response:
        return Response(content, media_type=kind)

    return serve


async def _refused(request: Request, error: HTTPException) -> Response:
    """A person who is not logged in is led to the login; a program is told."""
    if (
        error.status_code == 401
        and request.url.path.endswith("/page")
        and "text/html" in request.headers.get("accept", "")
    ):
        return RedirectResponse(guard.login_url(str(request.url)), 303)
    return JSONResponse({"error": str(error.detail), "hint": ""}, error.status_code)


async def _failed(_: Request, error: MlengineError) -> Response:
    """This project's errors say what happened and what to do; the page has a place for both."""
    status = next((code for kind, code in _CODES.items() if isinstance(error, kind)), 400)
    if error.retryable:
        status = 503
    log.info("refused: %s", error.message)
    return JSONResponse({"error": error.message, "hint": error.hint}, status)


_CODES: dict[type[MlengineError], int] = {
    ObjectMissingError: 404,
    StorageForbiddenError: 502,
    BackendError: 409,
    PublishError: 409,
}
