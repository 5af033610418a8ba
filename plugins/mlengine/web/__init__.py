"""The page in Airflow's UI: jobs and models, served by Airflow's API server under ``/mlengine``.

Every Airflow process loads the plugin, but only the API server handles requests. Therefore, the plugin mounts an ASGI
wrapper that imports and builds the application at the first request.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

PREFIX = "/mlengine"


class LazyApp:
    """An ASGI application that is built at the first request.

    :param make: builds the application; called once, in a thread.
    """

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
