"""ML Engine's ``projects.jobs``, as that service responded before it was shut down."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from mlengine.core.errors import EmulatorApiError, JobFileError
from mlengine.core.job import JobState
from mlengine.core.job_file import parse
from mlengine.emulator import mlengine_jobs
from mlengine.emulator.http import Request
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
    """The methods. Each raises :class:`EmulatorApiError` where the service responded with an error."""

    name, filters, limit = MLENGINE, _FILTERS, 100

    def create(self, request: Request) -> dict[str, Any]:
        """projects.jobs.create."""
        request.only()
        project, _ = parent_of(request)
        job, spec = mlengine_jobs.read(request.json())
        submission, notes = mlengine_jobs.submission(job, spec, project, self._storage, self._bucket)
        return render(self._take(request, job["jobId"], job, submission, notes))

    def get(self, request: Request) -> dict[str, Any]:
        """projects.jobs.get."""
        request.only()
        return render(self._record(request))

    def list(self, request: Request) -> dict[str, Any]:
        """projects.jobs.list."""
        request.only("filter", "pageSize", "pageToken")
        jobs = [render(record) for record in self._engine.jobs_of(MLENGINE, *parent_of(request))]
        found, token = self._page(request, jobs)
        return {"jobs": list(found), **({"nextPageToken": token} if token else {})}

    def cancel(self, request: Request) -> dict[str, Any]:
        """projects.jobs.cancel."""
        request.only()
        request.json()
        self._engine.cancel(self._record(request))
        return {}

    def patch(self, request: Request) -> dict[str, Any]:
        """projects.jobs.patch. Only labels can be changed."""
        request.only("updateMask")
        names = [name for name in request.query.get("updateMask", "").split(",") if name]
        if not names or any(name.split(".")[0] != "labels" for name in names):
            raise EmulatorApiError("Field: update_mask Error: Only labels can be updated.")
        record, body = self._record(request), request.json()
        if body.get("etag") not in (None, "", _etag(record)):
            raise EmulatorApiError("The etag is not the job's current etag.", status="ABORTED")
        sent = body.get("labels", {})
        if not isinstance(sent, dict):
            raise EmulatorApiError("Field: job.labels Error: It must be an object.")
        labels = _merged(dict(record.labels), sent, names)
        try:
            parse.load({"trainingInput": {}, "labels": labels}, name="job")
        except JobFileError as error:
            raise EmulatorApiError(error.message, hint=error.hint) from error
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


def _merged(labels: dict[str, Any], sent: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The labels after an update of ``names``: all of them, or single ones such as ``labels.team``."""
    for name in names:
        _, _, label = name.partition(".")
        if not label:
            labels = dict(sent)
        elif label in sent:
            labels[label] = sent[label]
        else:
            labels.pop(label, None)
    return labels


def _etag(record: Record) -> str:
    text = json.dumps([record.id, dict(record.labels), record.state.value], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
