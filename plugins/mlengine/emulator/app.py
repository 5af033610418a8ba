"""The emulator's ASGI application. It finds the method of a request, applies faults, and responds with JSON.

Methods are synchronous and run in threads. :mod:`mlengine.emulator.server` resets connections.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from mlengine.core.errors import EmulatorApiError, MlengineError
from mlengine.emulator.effects import Effects
from mlengine.emulator.faults import Fault, FaultScript
from mlengine.emulator.http import HTTP_STATUS, Rendered, Request, Response, as_dict, error_body
from mlengine.emulator.log_limits import project_of, unfinished_search
from mlengine.emulator.routes import Route, Routes

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


class App:
    """The ASGI application.

    :param reset: a function that resets the connection of a client, given its address.
    """

    def __init__(self, routes: Routes, script: FaultScript, effects: Effects, reset: Callable[[Any], None]) -> None:
        self._routes, self._script, self._effects, self._reset = routes, script, effects, reset

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        body = await _body(receive)
        try:
            route, path = self._routes.find(scope["method"], scope["path"])
        except EmulatorApiError as error:
            await _send(send, *error_body(error))
            return
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        numbers = "enum-encoding=int" in query.get("$alt", "")
        faults = self._script.match(route.name, project_of(path, body)) if route.name else []
        stuck = any(fault.action == "stick" for fault in faults)
        request = Request(path, query, body, enums_as_numbers=numbers, stuck=stuck, faults=faults)
        if not await self._before(faults, scope, send):
            return
        status, response = await asyncio.to_thread(self._call, route, request, faults)
        log.info("%s %s: %d", route.name or scope["method"], scope["path"], status)
        await self._respond(faults, scope, send, status, response)

    def _call(self, route: Route, request: Request, faults: list[Fault]) -> tuple[int, Response]:
        try:
            if any(fault.action == "empty" for fault in faults):
                return 200, unfinished_search(request)
            response = route.handler(request)
            for fault in faults:
                response = self._effects.apply(fault, as_dict(response))
        except MlengineError as error:
            return error_body(error)
        except Exception as error:
            log.exception("%s failed", route.name)
            return 500, {"error": {"code": 500, "message": f"Internal error: {error!r}", "status": "INTERNAL"}}
        return 200, response

    async def _before(self, faults: list[Fault], scope: Message, send: Send) -> bool:
        """Apply faults that precede the call. Returns whether the method is executed."""
        for fault in faults:
            if fault.action == "delay":
                await asyncio.sleep(fault.seconds)
            elif fault.action == "reset":
                await self._reset_connection(scope)
                return False
            elif fault.refusal is not None:
                status, message = fault.refusal
                code = HTTP_STATUS[status]
                await _send(send, code, {"error": {"code": code, "message": message, "status": status}})
                return False
        return True

    async def _respond(self, faults: list[Fault], scope: Message, send: Send, status: int, response: Response) -> None:
        actions = {fault.action: fault for fault in faults}
        if "lose" in actions:
            await self._reset_connection(scope)
        elif "cut" in actions:
            await _send(send, status, response, only=actions["cut"].bytes)
            # The bytes must leave the socket's buffer before the reset discards it.
            await asyncio.sleep(0.05)
            await self._reset_connection(scope)
        else:
            await _send(send, status, response)

    async def _reset_connection(self, scope: Message) -> None:
        self._reset(scope["client"])
        # Let uvicorn handle the lost connection; otherwise, it logs a missing response.
        await asyncio.sleep(0)


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


async def _send(send: Send, status: int, response: Response, *, only: int | None = None) -> None:
    body = (response.text if isinstance(response, Rendered) else json.dumps(response)).encode()
    headers = [(b"content-type", b"application/json; charset=UTF-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if only is not None:
        await send({"type": "http.response.body", "body": body[:only], "more_body": True})
        return
    await send({"type": "http.response.body", "body": body})
