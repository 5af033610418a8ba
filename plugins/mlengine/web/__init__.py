"""The page in Airflow's UI: jobs and models, served by Airflow's API server under ``/mlengine``.

Every process of Airflow's loads the plugin, and only the API server answers requests: so what is mounted here is a door
that builds the application when the first request comes, and imports nothing until then.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

PREFIX = "/mlengine"


class LazyApp:
    """An ASGI application that is made by the first request. ``make`` runs in a thread, once."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._app: Any = None
        self._lock = threading.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            await asyncio.to_thread(self._build)
        await self._app(scope, receive, send)

    def _build(self) -> None:
        with self._lock:
            if self._app is None:
                self._app = self._make()


def _make() -> Any:
    from mlengine.web.app import make_app

    return make_app()


app = LazyApp(_make)
