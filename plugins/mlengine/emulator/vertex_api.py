"""Vertex AI's JobService for custom jobs over REST, and the operations that its delete methods return."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

from mlengine.backends import RunsOnHost
from mlengine.backends.vertex.states import STATES
from mlengine.core.errors import EmulatorApiError
from mlengine.core.job import JobState
from mlengine.core.times import rfc3339
from mlengine.emulator import messages, vertex_checks, vertex_jobs
from mlengine.emulator.http import Request, list_response
from mlengine.emulator.job_api import JobApi, parent_of, times
from mlengine.emulator.objects import ObjectCopies
from mlengine.emulator.projects import location_name, project_number
from mlengine.emulator.records import VERTEX, Record

_STATE_NAMES = {state: name for name, state in reversed(list(STATES.items()))}
# The filter fields that ListCustomJobs documents, in addition to labels.
_FILTERS = {
    "display_name": "displayName",
    "displayName": "displayName",
    "state": "state",
    "create_time": "createTime",
    "createTime": "createTime",
}


class VertexApi(JobApi):
    """The methods of the API. Each raises :class:`EmulatorApiError` where the service responds with an error."""

    # "The standard list page size": the documentation does not state the number. Clients must not rely on a large
    # default.
    name, filters, limit, default = VERTEX, _FILTERS, 1000, 100

    def create(self, request: Request) -> dict[str, Any]:
        """Handle CreateCustomJob."""
        request.only()
        job = messages.read_custom_job(request.json())
        vertex_checks.check(job)
        return self._response(self.start(request, job), request)

    def start(self, request: Request, job: Mapping[str, Any]) -> Record:
        """Create a job.

        :param request: a create request, whose parent becomes the job's parent.
        :param job: the checked job in canonical form.
        :raises EmulatorApiError: the job cannot run here.
        """
        project, region = parent_of(request)
        number = new_id()
        # Only a backend on this host needs local copies, because Vertex AI mounts buckets.
        local = isinstance(self._engine.backend, RunsOnHost)
        folder = self._engine.objects_dir((VERTEX, project, region, number))
        copies = ObjectCopies(self._storage, folder) if local else None
        submission, notes = vertex_jobs.submission(job, number, self._storage, self._bucket, copies)
        submission = replace(submission, project=project_number(project), region=region)
        return self._take(request, number, job, submission, notes)

    def get(self, request: Request) -> dict[str, Any]:
        """Handle GetCustomJob."""
        request.only()
        return self._response(self._record(request), request)

    def list(self, request: Request) -> dict[str, Any]:
        """Handle ListCustomJobs."""
        request.only("filter", "pageSize", "pageToken", "readMask")
        mask = messages.FieldMask(request.query.get("readMask", ""), messages.custom_job_type())
        records = self._engine.jobs_of(VERTEX, *parent_of(request))
        found, token = self._page(request, [render(record) for record in records])
        selected = [mask.apply(job) for job in found]
        if request.enums_as_numbers:
            selected = [messages.with_numbers(job, messages.custom_job_type()) for job in selected]
        return list_response("customJobs", selected, token)

    def cancel(self, request: Request) -> dict[str, Any]:
        """Handle CancelCustomJob."""
        request.only()
        request.json()
        record = self._record(request)
        try:
            self._engine.cancel(record)
        except EmulatorApiError as error:
            job = render(self._record(request))
            raise ended("CustomJob", job["name"], job["state"]) from error
        return {}

    def delete(self, request: Request) -> dict[str, Any]:
        """Handle DeleteCustomJob. The response is an operation that is done."""
        request.only()
        record = self._record(request)
        self._engine.delete(record)
        return deletion(record.project, record.region, record.id, record.updated)

    def operation(self, request: Request) -> dict[str, Any]:
        """Handle GetOperation. An operation has the same number as the job that it deleted."""
        project, region = parent_of(request)
        record = self._engine.store.get((VERTEX, project, region, request.path["operation"]))
        if record is None or not record.deleted:
            raise EmulatorApiError("The operation is not found.", status="NOT_FOUND")
        return deletion(project, region, record.id, record.updated)

    def _record(self, request: Request) -> Record:
        project, region = parent_of(request)
        number = request.path["job"]
        name = f"{location_name(project, region)}/customJobs/{number}"
        return self._engine.get((VERTEX, project, region, number), f'CustomJob "{name}"')

    def _response(self, record: Record, request: Request) -> dict[str, Any]:
        job = render(record)
        return messages.with_numbers(job, messages.custom_job_type()) if request.enums_as_numbers else job


def render(record: Record) -> dict[str, Any]:
    """A job as the service returns it."""
    state = record.state
    if record.stuck and not state.terminal:
        state = JobState.PREPARING
    job = {
        "name": job_name(record),
        **record.body,
        "state": _STATE_NAMES[state],
        "updateTime": rfc3339(record.updated),
        **times(record),
    }
    if record.body.get("jobSpec", {}).get("enableWebAccess") and state is JobState.RUNNING:
        job["webAccessUris"] = _web_access_uris(record)
    error = record.shown_error
    if error is not None and state in {JobState.FAILED, JobState.CANCELLED}:
        job["error"] = dict(error)
    return job


def _web_access_uris(record: Record) -> dict[str, str]:
    """A URI for each replica, in the service's form. The URIs do not work, because the emulator has no shells."""
    pools = enumerate(record.body["jobSpec"]["workerPoolSpecs"])
    nodes = [f"workerpool{place}-{index}" for place, pool in pools for index in range(int(pool.get("replicaCount", 0)))]
    host = f"{record.region}.aiplatform-training.googleusercontent.com"
    return {node: f"https://{sha256(f'{record.id} {node}'.encode()).hexdigest()[:16]}-dot-{host}" for node in nodes}


def job_name(record: Record) -> str:
    """The resource name of a custom job."""
    return f"{location_name(record.project, record.region)}/customJobs/{record.id}"


def ended(kind: str, name: str, state: str) -> EmulatorApiError:
    """The error of a request to cancel a resource that has ended. The message is known for training pipelines.

    :param kind: the type of the resource.
    """
    return EmulatorApiError(
        f'The {kind} "{name}" is in state {state} and cannot be canceled.', status="FAILED_PRECONDITION"
    )


def new_id() -> str:
    """A new id of a resource."""
    return str(10**17 + secrets.randbelow(9 * 10**18))


def deletion(project: str, region: str, resource_id: str, moment: float) -> dict[str, Any]:
    """The operation of a deletion, which is done.

    :param resource_id: the id of the deleted resource, which is also the operation's id.
    :param moment: the time of the deletion.
    """
    moments = {"createTime": rfc3339(moment), "updateTime": rfc3339(moment)}
    return {
        "name": f"{location_name(project, region)}/operations/{resource_id}",
        "metadata": {
            "@type": "type.googleapis.com/google.cloud.aiplatform.v1.DeleteOperationMetadata",
            "genericMetadata": moments,
        },
        "done": True,
        "response": {"@type": "type.googleapis.com/google.protobuf.Empty"},
    }
