#!/usr/bin/env bash
# apache-airflow-core 3.3.2 with cadwyn: the API server answers nobody for seconds when the first task reports to it.
#
# The API for tasks has eight versions. Cadwyn builds the routes and models of all of them when the first request comes,
# in the event loop. Health checks, the UI and other tasks wait. Any request to /execution builds them, for example a GET
# of /execution/health without credentials.
#
# Output seen:   routes of all versions before the first request: 0, after it: 359
#                longest pause of the event loop in the first request: 2.94 s, in the second: 0.00 s
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 cadwyn==7.0.0 \
    fastapi==0.136.3 starlette==1.10.0 pydantic==2.14.3 sqlalchemy==2.1.9 httpx==0.28.1
cat > "$work/ask.py" <<'PY'
import asyncio
import time

import httpx
from airflow.api_fastapi.execution_api.app import create_task_execution_api_app


async def longest_pause(client):
    over, pauses = asyncio.Event(), [0.0]

    async def tick():
        while not over.is_set():
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            pauses.append(time.perf_counter() - began)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.05)
    answer = await client.get("/health")
    assert answer.json() == {"status": "healthy"}, answer.text
    await asyncio.sleep(0.05)
    over.set()
    await ticking
    return max(pauses)


def routes(app):
    return sum(len(router.routes) for router in app.router.versioned_routers.values())


async def main():
    app = create_task_execution_api_app()
    before = routes(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tasks") as client:
        first, second = await longest_pause(client), await longest_pause(client)
    after = routes(app)
    print(f"routes of all versions before the first request: {before}, after it: {after}")
    print(f"longest pause of the event loop in the first request: {first:.2f} s, in the second: {second:.2f} s")
    if not (before < after and first > 10 * second):
        raise SystemExit("changed: the routes are built before the first request, or outside of the event loop")


asyncio.run(main())
PY
AIRFLOW_HOME="$work/airflow" "$work/venv/bin/python" "$work/ask.py" 2>/dev/null | tail -n 2
