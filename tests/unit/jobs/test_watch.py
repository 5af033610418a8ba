"""For any number of jobs, a tick makes few requests to Vertex AI, and no line is lost or repeated."""

from __future__ import annotations

import asyncio
import math
import re
import threading
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from mlengine.backends.vertex import logs
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.core.job import JobHandle
from mlengine.core.times import rfc3339
from mlengine.jobs.polling import Poller
from mlengine.jobs.watch import PollResult, Watch, next_batch

PARENT = "projects/p/locations/r"
BEGIN = 1_800_000_000.0
_JOB = re.compile(r'job_id="(\d+)"(?: AND timestamp>="([^"]+)")?')


class Service:
    """Vertex AI and Cloud Logging as a poll uses them. Each request is recorded as a letter."""

    sleep = staticmethod(time.sleep)

    def __init__(self, count: int) -> None:
        self.lines: dict[str, list[dict[str, Any]]] = {str(number): [] for number in range(count)}
        self.state = "JOB_STATE_RUNNING"
        self.calls = ""
        self._moment = BEGIN
        self._lock = threading.Lock()

    def write_lines(self) -> None:
        """Add one log line for each job."""
        with self._lock:
            self._moment += 1.0
            for number, lines in self.lines.items():
                text = f"{number}: line {len(lines)}"
                labels = {"job_id": number, "task_name": "workerpool0-0"}
                stamp = rfc3339(self._moment)
                resource = {"labels": labels}
                lines.append({"insertId": text, "timestamp": stamp, "textPayload": text, "resource": resource})

    def call(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        with self._lock:
            if url.endswith("entries:list"):
                self.calls += "L"
                return self._entries(more["body"])
            self.calls += "S"
            if url.endswith("/customJobs"):
                return {"customJobs": [self._job(number) for number in self.lines]}
            return self._job(url.rsplit("/", 1)[1])

    def _job(self, number: str) -> dict[str, Any]:
        return {"name": f"{PARENT}/customJobs/{number}", "state": self.state, "createTime": rfc3339(BEGIN)}

    def _entries(self, body: Mapping[str, Any]) -> dict[str, Any]:
        assert len(body["filter"]) <= 20_000, "what Cloud Logging takes"
        found = [
            entry
            for number, since in _JOB.findall(body["filter"])
            for entry in self.lines[number]
            if entry["timestamp"] >= since
        ]
        found.sort(key=lambda entry: entry["timestamp"])
        begin, size = int(body.get("pageToken", 0)), body["pageSize"]
        rest = {"nextPageToken": str(begin + size)} if begin + size < len(found) else {}
        return {"entries": found[begin : begin + size], **rest}


class Outputs:
    """A bucket in which every job has written a model."""

    def ls(self, prefix: str) -> list[Any]:
        return [SimpleNamespace(uri=f"{prefix}saved_model.pb")]


@pytest.mark.parametrize("count", [1, logs.JOBS_A_CALL, 1000])
def test_a_tick_takes_few_requests_and_no_line_is_lost_or_repeated(count: int) -> None:
    service = Service(count)
    place: Any = {"project": "p", "region": "r", "endpoint": "http://127.0.0.1:1"}
    backend = VertexBackend(**place, client=service, storage=Outputs())  # type: ignore[arg-type]
    received: dict[str, list[str]] = {}
    ended: set[str] = set()
    while_running: list[str] = []

    async def wait(watch: Watch) -> None:
        number = watch.handle.job_id
        while number not in ended:
            polled = await watch.next(60.0)
            assert isinstance(polled, PollResult), polled
            received.setdefault(number, []).extend(line.text for line in polled.page.lines)
            if polled.status.state.terminal and not polled.page.more:
                ended.add(number)

    async def main() -> None:
        poller = Poller.shared("backend", lambda: backend, 0.02)
        async with AsyncExitStack() as stack:
            waits = []
            for number in service.lines:
                handle = JobHandle("vertex", f"{PARENT}/customJobs/{number}", number, 1, f"gs://bkt/m/j{number}")
                waits.append(asyncio.create_task(wait(await stack.enter_async_context(poller.watch(handle, {})))))
            for _ in range(3):
                service.write_lines()
                before = len(service.calls)
                while service.calls.count("L", before) < 2 or service.calls.count("S", before) < 1:
                    await asyncio.sleep(0.01)
            # Only the calls until here are counted: after the end, the poll of the states also searches for outputs,
            # and the last lines are read at once.
            while_running.append(service.calls)
            # The last lines are written, and all jobs end at once.
            service.write_lines()
            service.state = "JOB_STATE_SUCCEEDED"
            await asyncio.wait_for(asyncio.gather(*waits), 60.0)

    asyncio.run(main())
    assert received == {number: [f"{number}: line {at}" for at in range(4)] for number in service.lines}
    ticks = [tick for tick in while_running[0].split("S") if tick]
    assert len(while_running[0].split("S")) > 3
    round_of_all = math.ceil(count / logs.JOBS_A_CALL)
    assert max(len(tick) for tick in ticks) <= round_of_all + 1, (
        "one request for the states and one for 150 logs are expected"
    )


def test_logs_of_finished_jobs_come_first_then_those_with_more_lines_then_by_age() -> None:
    watches = []
    for number in range(12):
        handle = JobHandle("memory", str(number), str(number), 1, "gs://bkt/m/j")
        ended_at = 1.0 if number in {10, 11} else None
        watches.append(Watch(handle, {}, read_at=float(number), more=number in {5, 6, 7, 8}, ended_at=ended_at))
    watches[10].over = True
    names = [watch.handle.name for watch in next_batch(watches, 6)]
    assert names == ["11", "5", "6", "7", "0", "1"]
    assert len(next_batch(watches, 100)) == 11
