"""The service as an ASGI application: request in, method found, faults struck, JSON out.

Methods are synchronous and run in threads. A connection is reset through the transport that the server keeps for it
(:mod:`mlengine.emulator.server`).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from mlengine.core.errors import MlengineError, ServiceRefusalError
from mlengine.emulator.effects import Effects
from mlengine.emulator.faults import Fault, Script
from mlengine.emulator.http import HTTP_STATUS, Request, error_body
from mlengine.emulator.routes import Route, Routes

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


class App:
    """:param reset: ends the connection of a client's address at once, without a word."""

    def __init__(self, routes: Routes, script: Script, effects: Effects, reset: Callable[[Any], None]) -> None:
        self._routes, self._script, self._effects, self._reset = routes, script, effects, reset

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await _body(receive)
        try:
            route, path = self._routes.find(scope["method"], scope["path"])
        except ServiceRefusalError as error:
            await _send(send, *error_body(error))
            return
        query = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
        numbers = "enum-encoding=int" in query.get("$alt", "")
        struck = self._script.strike(route.name) if route.name else []
        stuck = any(fault.action == "stick" for fault in struck)
        request = Request(path, query, body, enums_as_numbers=numbers, stuck=stuck)
        if not await self._before(struck, scope, send):
            return
        status, answer = await asyncio.to_thread(self._do, route, request, struck)
        log.info("%s %s: %d", route.name or scope["method"], scope["path"], status)
        await self._after(struck, scope, send, status, answer)

    def _do(self, route: Route, request: Request, struck: list[Fault]) -> tuple[int, dict[str, Any]]:
        try:
            answer = route.handler(request)
            for fault in struck:
                answer = self._effects.apply(fault, answer)
        except MlengineError as error:
            return error_body(error)
        except Exception as error:
            log.exception("%s failed", route.name)
            return 500, {"error": {"code": 500, "message": f"Internal error: {error!r}", "status": "INTERNAL"}}
        return 200, answer

    async def _before(self, struck: list[Fault], scope: Message, send: Send) -> bool:
        """Whether the method is to be done at all."""
        for fault in struck:
            if fault.action == "delay":
                await asyncio.sleep(fault.seconds)
            elif fault.action == "reset":
                await self._hang_up(scope)
                return False
            elif fault.action == "status":
                code = HTTP_STATUS[fault.status]
                error = {"code": code, "message": fault.message, "status": fault.status}
                await _send(send, code, {"error": error})
                return False
        return True

    async def _after(
        self, struck: list[Fault], scope: Message, send: Send, status: int, answer: dict[str, Any]
    ) -> None:
        actions = {fault.action: fault for fault in struck}
        if "lose" in actions:
            await self._hang_up(scope)
        elif "cut" in actions:
            await _send(send, status, answer, only=actions["cut"].bytes)
            # What was sent must leave before the reset takes it back.
            await asyncio.sleep(0.05)
            await self._hang_up(scope)
        else:
            await _send(send, status, answer)

    async def _hang_up(self, scope: Message) -> None:
        self._reset(scope["client"])
        # Let the server notice, or it complains about an answer that never came.
        await asyncio.sleep(0)


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


async def _send(send: Send, status: int, answer: dict[str, Any], *, only: int | None = None) -> None:
    body = json.dumps(answer).encode()
    headers = [(b"content-type", b"application/json; charset=UTF-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if only is not None:
        await send({"type": "http.response.body", "body": body[:only], "more_body": True})
        return
    await send({"type": "http.response.body", "body": body})
