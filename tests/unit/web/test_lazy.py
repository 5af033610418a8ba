"""The page's application is built, and its modules are imported, on the first request."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from mlengine.web import LazyApp

PLUGINS = Path(__file__).parents[3] / "plugins"

PROGRAM = """
import json, sys
import airflow.plugins_manager
from airflow.sdk import BaseOperator, BaseOperatorLink
known = set(sys.modules)
import mlengine.web, mlengine.links.job
print("NEW " + json.dumps(sorted(set(sys.modules) - known)))
"""


def test_mounting_the_plugin_imports_no_web_framework() -> None:
    """Every Airflow process loads the plugin, but only the API server needs FastAPI."""
    env = {**os.environ, "PYTHONPATH": str(PLUGINS)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("NEW "))
    new = json.loads(line.removeprefix("NEW "))
    assert "mlengine.web" in new
    assert [name for name in new if name.split(".")[0] not in {"mlengine", "asyncio", "concurrent"}] == []
    assert [name for name in new if name.startswith("mlengine.web.")] == []


def test_the_application_is_created_once_and_outside_the_event_loop() -> None:
    threads = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        answered.append(scope["path"])

    def make() -> Any:
        threads.append(threading.current_thread())
        return application

    async def visit() -> None:
        await asyncio.gather(*(lazy({"type": "http", "path": f"/{at}"}, None, None) for at in range(5)))

    answered: list[str] = []
    lazy = LazyApp(make)
    asyncio.run(visit())
    assert sorted(answered) == [f"/{at}" for at in range(5)]
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
