"""ML Engine's ``projects.jobs``, as that service responded before it was shut down."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from mlengine.core.errors import EmulatorApiError, JobFileError
from mlengine.core.job import JobState
from mlengine.core.job_file import parse
from mlengine.emulator import field_errors, mlengine_jobs
from mlengine.emulator.http import Request, list_response
from mlengine.emulator.job_api import JobApi, parent_of, times
from mlengine.emulator.records import MLENGINE, Record

# States that ML Engine did not have.
_STATES = {JobState.EXPIRED: JobState.FAILED, JobState.PAUSED: JobState.QUEUED, JobState.UNKNOWN: JobState.QUEUED}
_FILTERS = {
    "jobId": "jobId",
    "job_id": "jobId",
    "state": "state",
    "createTime": "createTime",
    "create_time": "createTime",
    "startTime": "startTime",
    "start_time": "startTime",
    "endTime": "endTime",
    "end_time": "endTime",
    "errorMessage": "errorMessage",
}


class MlengineApi(JobApi):
    """The methods of the API. Each raises :class:`EmulatorApiError` where the service responded with an error."""

    # "The default value is 20, and the maximum page size is 100."
    name, filters, limit, default = MLENGINE, _FILTERS, 100, 20

    def create(self, request: Request) -> dict[str, Any]:
        """Handle projects.jobs.create."""
        request.only()
        project, _ = parent_of(request)
        job, spec = mlengine_jobs.read(request.json())
        submission, notes = mlengine_jobs.submission(job, spec, project, self._storage, self._bucket)
        return render(self._take(request, job["jobId"], job, submission, notes))

    def get(self, request: Request) -> dict[str, Any]:
        """Handle projects.jobs.get."""
        request.only()
        return render(self._record(request))

    def list(self, request: Request) -> dict[str, Any]:
        """Handle projects.jobs.list."""
        request.only("filter", "pageSize", "pageToken")
        jobs = [render(record) for record in self._engine.jobs_of(MLENGINE, *parent_of(request))]
        found, token = self._page(request, jobs)
        return list_response("jobs", found, token)

    def cancel(self, request: Request) -> dict[str, Any]:
        """Handle projects.jobs.cancel."""
        request.only()
        request.json()
        self._engine.cancel(self._record(request))
        return {}

    def patch(self, request: Request) -> dict[str, Any]:
        """Handle projects.jobs.patch. Only the labels can be changed, and only all of them together."""
        request.only("updateMask")
        mask = _update_mask(request.query.get("updateMask", ""))
        record, body = self._record(request), request.json()
        _check_etag(body.get("etag"), record, required="etag" in mask)
        if "labels" not in mask:
            return render(record)
        labels = body.get("labels", {})
        if not isinstance(labels, dict):
            raise field_errors.mlengine("job.labels", "It must be an object.")
        try:
            parse.load({"trainingInput": {}, "labels": labels}, name="job")
        except JobFileError as error:
            raise field_errors.mlengine_of(error) from error
        return render(self._engine.relabel(record, labels))

    def _record(self, request: Request) -> Record:
        project, _ = parent_of(request)
        job_id = request.path["job"]
        name = f"projects/{project}/jobs/{job_id}"
        return self._engine.get((MLENGINE, project, "", job_id), f"Field: name Error: Job {name}")


def render(record: Record) -> dict[str, Any]:
    """A job as the service returned it."""
    state = JobState.PREPARING if record.stuck and not record.state.terminal else record.state
    job = {
        **record.body,
        **times(record),
        "state": _STATES.get(state, state).value,
        "etag": _etag(record),
        "trainingOutput": {},
    }
    if record.error is not None:
        job["errorMessage"] = record.error["message"]
    return job


def _update_mask(text: str) -> set[str]:
    """The fields of an update.

    :raises EmulatorApiError: the mask has no fields, or other fields than the two in the API's discovery document:
        "Currently the only supported update masks are `labels` and `etag`." Single labels, such as ``labels.team``, are
        not supported.
    """
    names = {name.strip() for name in text.split(",") if name.strip()}
    if not names:
        raise field_errors.mlengine("update_mask", "The update mask is required.")
    for name in sorted(names - {"labels", "etag"}):
        raise field_errors.mlengine(
            "update_mask", f"Invalid field path '{name}'. The only supported update masks are labels and etag."
        )
    return names


def _check_etag(sent: Any, record: Record, *, required: bool) -> None:
    """Check the etag of an update.

        :param required: whether the update mask names the etag.
    :raises EmulatorApiError: the etag is missing, or is not the job's current one.
    """
    if sent in (None, ""):
        if required:
            raise field_errors.mlengine("job.etag", "The etag is in the update mask, but not in the job.")
    elif sent != _etag(record):
        raise EmulatorApiError("The etag is not the job's current etag.", status="ABORTED")


def _etag(record: Record) -> str:
    text = json.dumps([record.id, dict(record.labels), record.state.value], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
