"""The limit of concurrent requests, called as an ASGI server does."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

import pytest

from mlengine.web.app import MAX_CONCURRENT_REQUESTS, SecurityMiddleware

# import_module, because the package has an attribute of the same name: the application that Airflow mounts.
app = import_module("mlengine.web.app")


async def _echo(_: Any, receive: Any, send: Any) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


async def _ask(middleware: SecurityMiddleware, parts: list[bytes], *, complete: bool = True) -> tuple[int, bytes]:
    """Send a request with a body in these parts. Returns the status and body of the response."""
    sent: list[dict[str, Any]] = []
    left = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if complete:
        left.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await middleware({"type": "http"}, receive, send)
    return sent[0]["status"], sent[1]["body"]


def test_a_body_is_passed_unchanged() -> None:
    assert asyncio.run(_ask(SecurityMiddleware(_echo), [b"a", b"b", b"c"])) == (200, b"abc")


def test_slow_requests_do_not_block_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_SECONDS", 0.2)

    async def check() -> None:
        middleware = SecurityMiddleware(_echo)
        slow = [
            asyncio.create_task(_ask(middleware, [b"a"], complete=False)) for _ in range(2 * MAX_CONCURRENT_REQUESTS)
        ]
        await asyncio.sleep(0)
        assert await _ask(middleware, [b"fast"]) == (200, b"fast")
        assert {status for status, _ in await asyncio.gather(*slow)} == {413}

    asyncio.run(check())


def test_a_large_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_BODY_BYTES", 3)
    assert asyncio.run(_ask(SecurityMiddleware(_echo), [b"ab", b"cd"]))[0] == 413
    assert asyncio.run(_ask(SecurityMiddleware(_echo), [b"abc"])) == (200, b"abc")
