"""Vertex AI's JobService for custom jobs, and the operations that its deletes return, over REST."""

from __future__ import annotations

import secrets
from hashlib import sha256
from typing import Any

from mlengine.backends import RunsOnHost
from mlengine.backends.vertex.states import STATES
from mlengine.core.errors import EmulatorApiError
from mlengine.core.job import JobState
from mlengine.core.times import rfc3339
from mlengine.emulator import messages, vertex_checks, vertex_jobs
from mlengine.emulator.http import Request
from mlengine.emulator.job_api import JobApi, parent_of, times
from mlengine.emulator.objects import ObjectCopies
from mlengine.emulator.records import VERTEX, Record

_STATE_NAMES = {state: name for name, state in reversed(list(STATES.items()))}
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


class VertexApi(JobApi):
    """The methods. Each raises :class:`EmulatorApiError` where the service responds with an error."""

    name, filters, limit = VERTEX, _FILTERS, 1000

    def create(self, request: Request) -> dict[str, Any]:
        """CreateCustomJob."""
        request.only()
        project, region = parent_of(request)
        job = messages.read_custom_job(request.json())
        vertex_checks.check(job)
        number = str(10**17 + secrets.randbelow(9 * 10**18))
        # On Vertex AI, buckets are mounted.
        local = isinstance(self._engine.backend, RunsOnHost)
        folder = self._engine.objects_dir((VERTEX, project, region, number))
        copies = ObjectCopies(self._storage, folder) if local else None
        submission, notes = vertex_jobs.submission(job, number, self._storage, self._bucket, copies)
        return self._response(self._take(request, number, job, submission, notes), request)

    def get(self, request: Request) -> dict[str, Any]:
        """GetCustomJob."""
        request.only()
        return self._response(self._record(request), request)

    def list(self, request: Request) -> dict[str, Any]:
        """ListCustomJobs."""
        request.only("filter", "pageSize", "pageToken", "readMask", "orderBy")
        mask = messages.Mask(request.query.get("readMask", ""), messages.custom_job_type())
        records = self._engine.jobs_of(VERTEX, *parent_of(request))
        jobs = [render(record) for record in _ordered(records, request.query.get("orderBy", ""))]
        found, token = self._page(request, jobs)
        selected = [mask.apply(job) for job in found]
        if request.enums_as_numbers:
            selected = [messages.with_numbers(job) for job in selected]
        response: dict[str, Any] = {"customJobs": selected}
        return {**response, "nextPageToken": token} if token else response

    def cancel(self, request: Request) -> dict[str, Any]:
        """CancelCustomJob."""
        request.only()
        request.json()
        self._engine.cancel(self._record(request))
        return {}

    def delete(self, request: Request) -> dict[str, Any]:
        """DeleteCustomJob. The response is an operation that is done."""
        request.only()
        record = self._record(request)
        self._engine.delete(record)
        return _operation(record)

    def operation(self, request: Request) -> dict[str, Any]:
        """GetOperation. An operation has the number of the job that it deleted."""
        project, region = parent_of(request)
        record = self._engine.store.get((VERTEX, project, region, request.path["operation"]))
        if record is None or not record.deleted:
            raise EmulatorApiError("The operation is not found.", status="NOT_FOUND")
        return _operation(record)

    def _record(self, request: Request) -> Record:
        project, region = parent_of(request)
        number = request.path["job"]
        name = f"projects/{project}/locations/{region}/customJobs/{number}"
        return self._engine.get((VERTEX, project, region, number), f'CustomJob "{name}"')

    def _response(self, record: Record, request: Request) -> dict[str, Any]:
        job = render(record)
        return messages.with_numbers(job) if request.enums_as_numbers else job


def render(record: Record) -> dict[str, Any]:
    """A job as the service returns it."""
    state = record.state
    if record.stuck and not state.terminal:
        state = JobState.PREPARING
    job = {
        "name": f"projects/{record.project}/locations/{record.region}/customJobs/{record.id}",
        **record.body,
        "state": _STATE_NAMES[state],
        "updateTime": rfc3339(record.updated),
        **times(record),
    }
    if record.body["jobSpec"].get("enableWebAccess") and state is JobState.RUNNING:
        job["webAccessUris"] = _web_access_uris(record)
    error = record.shown_error
    if error is not None and state in {JobState.FAILED, JobState.CANCELLED}:
        job["error"] = dict(error)
    return job


def _web_access_uris(record: Record) -> dict[str, str]:
    """One for each replica, of the service's form. They lead nowhere: the emulator has no shells."""
    pools = enumerate(record.body["jobSpec"]["workerPoolSpecs"])
    nodes = [f"workerpool{place}-{index}" for place, pool in pools for index in range(int(pool.get("replicaCount", 0)))]
    host = f"{record.region}.aiplatform-training.googleusercontent.com"
    return {node: f"https://{sha256(f'{record.id} {node}'.encode()).hexdigest()[:16]}-dot-{host}" for node in nodes}


def _ordered(records: list[Record], order: str) -> list[Record]:
    """The newest first, which is the service's order, or by create time if requested."""
    if order.replace("createTime", "create_time") in {"", "create_time desc"}:
        return records
    if order.replace("createTime", "create_time") in {"create_time", "create_time asc"}:
        return records[::-1]
    raise EmulatorApiError(f"Invalid orderBy: {order}")


def _operation(record: Record) -> dict[str, Any]:
    moments = {"createTime": rfc3339(record.updated), "updateTime": rfc3339(record.updated)}
    return {
        "name": f"projects/{record.project}/locations/{record.region}/operations/{record.id}",
        "metadata": {
            "@type": "type.googleapis.com/google.cloud.aiplatform.v1.DeleteOperationMetadata",
            "genericMetadata": moments,
        },
        "done": True,
        "response": {"@type": "type.googleapis.com/google.protobuf.Empty"},
    }
