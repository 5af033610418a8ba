"""Vertex AI's JobService for custom jobs, and the operations that its deletes answer with, over REST."""

from __future__ import annotations

import secrets
from typing import Any

from mlengine.backends.vertex.states import STATES
from mlengine.core.errors import ServiceRefusalError
from mlengine.core.job import JobState
from mlengine.core.times import rfc3339
from mlengine.emulator import messages, vertex_jobs
from mlengine.emulator.apis import Face, times
from mlengine.emulator.http import Request, mask
from mlengine.emulator.records import VERTEX, Record

MOST = 1000  # jobs on a page
_WORDS = {state: word for word, state in reversed(list(STATES.items()))}
_FILTERS = {
    "display_name": "displayName",
    "displayName": "displayName",
    "state": "state",
    "create_time": "createTime",
    "createTime": "createTime",
    "update_time": "updateTime",
    "updateTime": "updateTime",
    "start_time": "startTime",
    "end_time": "endTime",
    "name": "name",
}


class VertexFace(Face):
    """The methods."""

    name, filters, most = VERTEX, _FILTERS, MOST

    def create(self, request: Request) -> dict[str, Any]:
        request.only()
        job = messages.read_custom_job(request.json())
        vertex_jobs.check(job)
        number = str(10**17 + secrets.randbelow(9 * 10**18))
        what = vertex_jobs.submission(job, number, self._storage, self._bucket)
        return self._answer(self._take(request, number, job, what), request)

    def get(self, request: Request) -> dict[str, Any]:
        request.only()
        return self._answer(self._record(request), request)

    def list(self, request: Request) -> dict[str, Any]:
        request.only("filter", "pageSize", "pageToken", "readMask", "orderBy")
        records = self._engine.jobs_of(VERTEX, request.path["project"], request.path["location"])
        jobs = [render(record) for record in _ordered(records, request.query.get("orderBy", ""))]
        some, token = self._page(request, jobs)
        if request.enums_as_numbers:
            some = [messages.with_numbers(job) for job in some]
        answer: dict[str, Any] = {"customJobs": [mask(job, request.query.get("readMask", "")) for job in some]}
        return {**answer, "nextPageToken": token} if token else answer

    def cancel(self, request: Request) -> dict[str, Any]:
        request.only()
        self._engine.cancel(self._record(request))
        return {}

    def delete(self, request: Request) -> dict[str, Any]:
        """Done at once, and answered as the operation that it is at the real service."""
        request.only()
        record = self._record(request)
        self._engine.delete(record)
        return _operation(record)

    def operation(self, request: Request) -> dict[str, Any]:
        """An operation's number is that of the job it deleted."""
        path = request.path
        record = self._engine.store.get((VERTEX, path["project"], path["location"], path["operation"]))
        if record is None or not record.deleted:
            raise ServiceRefusalError("The operation is not found.", status="NOT_FOUND")
        return _operation(record)

    def _record(self, request: Request) -> Record:
        path = request.path
        name = f"projects/{path['project']}/locations/{path['location']}/customJobs/{path['job']}"
        return self._engine.get((VERTEX, path["project"], path["location"], path["job"]), f'CustomJob "{name}"')

    def _answer(self, record: Record, request: Request) -> dict[str, Any]:
        job = render(record)
        return messages.with_numbers(job) if request.enums_as_numbers else job


def render(record: Record) -> dict[str, Any]:
    """A job as the service shows it."""
    state = record.state
    if record.stuck and not state.terminal:
        state = JobState.PREPARING
    job = {
        "name": f"projects/{record.project}/locations/{record.region}/customJobs/{record.id}",
        **record.body,
        "state": _WORDS[state],
        "updateTime": rfc3339(record.updated),
        **times(record),
    }
    if record.error is not None and state in {JobState.FAILED, JobState.CANCELLED}:
        job["error"] = dict(record.error)
    return job


def _ordered(records: list[Record], order: str) -> list[Record]:
    """The newest first, as the service has them; by create time where asked."""
    if order.replace("createTime", "create_time") in {"", "create_time desc"}:
        return records
    if order.replace("createTime", "create_time") in {"create_time", "create_time asc"}:
        return records[::-1]
    raise ServiceRefusalError(f"Invalid orderBy: {order}")


def _operation(record: Record) -> dict[str, Any]:
    times = {"createTime": rfc3339(record.updated), "updateTime": rfc3339(record.updated)}
    return {
        "name": f"projects/{record.project}/locations/{record.region}/operations/{record.id}",
        "metadata": {
            "@type": "type.googleapis.com/google.cloud.aiplatform.v1.DeleteOperationMetadata",
            "genericMetadata": times,
        },
        "done": True,
        "response": {"@type": "type.googleapis.com/google.protobuf.Empty"},
    }
