"""However many jobs are waited for, a tick is two requests to Vertex AI; and not a line is lost or told twice."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from mlengine.backends.vertex import logs
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.core.times import rfc3339
from mlengine.jobs.polling import Poller
from mlengine.jobs.watch import Look, Watch, turn

PARENT = "projects/p/locations/r"
BEGIN = 1_800_000_000.0
_JOB = re.compile(r'job_id="(\d+)"(?: AND timestamp>="([^"]+)")?')


class Service:
    """Vertex AI and Cloud Logging, as far as a poll asks them; each request is noted by a letter."""

    sleep = staticmethod(time.sleep)

    def __init__(self, count: int) -> None:
        self.lines: dict[str, list[dict[str, Any]]] = {str(number): [] for number in range(count)}
        self.state = "JOB_STATE_RUNNING"
        self.calls = ""
        self._moment = BEGIN
        self._lock = threading.Lock()

    def speak(self) -> None:
        """Each job says one line more."""
        with self._lock:
            self._moment += 1.0
            for number, said in self.lines.items():
                text = f"{number} says {len(said)}"
                labels = {"job_id": number, "task_name": "workerpool0-0"}
                stamp = rfc3339(self._moment)
                said.append({"insertId": text, "timestamp": stamp, "textPayload": text, "resource": {"labels": labels}})

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


@pytest.mark.parametrize("count", [1, logs.JOBS_A_CALL, 1000])
def test_a_tick_is_two_requests_and_no_line_is_lost_or_told_twice(count: int) -> None:
    service = Service(count)
    backend = VertexBackend(project="p", region="r", endpoint="http://127.0.0.1:1", client=service)  # type: ignore[arg-type]
    told: dict[str, list[str]] = {}
    ended: set[str] = set()

    async def wait(watch: Watch) -> None:
        number = watch.handle.job_id
        while number not in ended:
            look = await watch.look(60.0)
            assert isinstance(look, Look), look
            told.setdefault(number, []).extend(line.text for line in look.page.lines)
            if look.status.state.terminal and not look.page.more:
                ended.add(number)

    async def main() -> None:
        poller = Poller.shared("place", lambda: backend, 0.02)
        async with AsyncExitStack() as stack:
            waits = []
            for number in service.lines:
                handle = JobHandle("vertex", f"{PARENT}/customJobs/{number}", number, 1, f"gs://bkt/m/j{number}")
                waits.append(asyncio.create_task(wait(await stack.enter_async_context(poller.watch(handle, {})))))
            for _ in range(3):
                service.speak()
                before = len(service.calls)
                while service.calls.count("L", before) < 2:
                    await asyncio.sleep(0.01)
            # The last words are said, and all end at once.
            service.speak()
            service.state = "JOB_STATE_SUCCEEDED"
            await asyncio.wait_for(asyncio.gather(*waits), 60.0)

    asyncio.run(main())
    assert told == {number: [f"{number} says {at}" for at in range(4)] for number in service.lines}
    ticks = [tick for tick in service.calls.split("S") if tick]
    assert len(service.calls.split("S")) > 3
    assert max(len(tick) for tick in ticks) == 1, "of each tick one request for the states, and one for the logs"


def test_the_ended_come_first_then_who_has_more_then_who_waited_longest() -> None:
    watches, statuses = [], []
    for number in range(12):
        handle = JobHandle("memory", str(number), str(number), 1, "gs://bkt/m/j")
        watches.append(Watch(handle, {}, read_at=float(number), more=number in {5, 6, 7, 8}))
        state = JobState.FAILED if number in {10, 11} else JobState.RUNNING
        statuses.append(JobStatus(handle, state))
    watches[10].over = True
    names = [watch.handle.name for watch in turn(watches, statuses, 6)]
    assert names == ["11", "5", "6", "7", "0", "1"]
    assert len(turn(watches, statuses, 100)) == 11
