"""ML Engine's ``projects.jobs``, which the service of that name answered until it was shut."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from mlengine.core.errors import JobFileError, ServiceRefusalError
from mlengine.core.job import JobState
from mlengine.core.job_file import parse
from mlengine.emulator import mlengine_jobs
from mlengine.emulator.apis import Face, times
from mlengine.emulator.http import Request
from mlengine.emulator.records import MLENGINE, Record

MOST = 100
# ML Engine had seven states.
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


class MlengineFace(Face):
    """The methods."""

    name, filters, most = MLENGINE, _FILTERS, MOST

    def create(self, request: Request) -> dict[str, Any]:
        request.only()
        job, spec = mlengine_jobs.read(request.json())
        what = mlengine_jobs.submission(job, spec, request.path["project"], self._storage, self._bucket)
        return render(self._take(request, job["jobId"], job, what))

    def get(self, request: Request) -> dict[str, Any]:
        request.only()
        return render(self._record(request))

    def list(self, request: Request) -> dict[str, Any]:
        request.only("filter", "pageSize", "pageToken")
        jobs = [render(record) for record in self._engine.jobs_of(MLENGINE, request.path["project"], "")]
        some, token = self._page(request, jobs)
        return {"jobs": list(some), **({"nextPageToken": token} if token else {})}

    def cancel(self, request: Request) -> dict[str, Any]:
        request.only()
        self._engine.cancel(self._record(request))
        return {}

    def patch(self, request: Request) -> dict[str, Any]:
        """Labels, the one field that may change."""
        request.only("updateMask")
        names = [name for name in request.query.get("updateMask", "").split(",") if name]
        if not names or any(name.split(".")[0] != "labels" for name in names):
            raise ServiceRefusalError("Field: update_mask Error: Only labels can be updated.")
        record, body = self._record(request), request.json()
        if body.get("etag") not in {None, "", _etag(record)}:
            raise ServiceRefusalError("The etag is not the job's: somebody changed it.", status="ABORTED")
        labels = dict(record.labels)
        sent = body.get("labels", {})
        for name in names:
            _, _, label = name.partition(".")
            if not label:
                labels = dict(sent)
            elif label in sent:
                labels[label] = sent[label]
            else:
                labels.pop(label, None)
        try:
            parse.load({"trainingInput": {}, "labels": labels}, name="job")
        except JobFileError as error:
            raise ServiceRefusalError(error.message, remedy=error.remedy) from error
        return render(self._engine.relabel(record, labels))

    def _record(self, request: Request) -> Record:
        path = request.path
        name = f"projects/{path['project']}/jobs/{path['job']}"
        return self._engine.get((MLENGINE, path["project"], "", path["job"]), f"Field: name Error: Job {name}")


def render(record: Record) -> dict[str, Any]:
    """A job as the service shows it."""
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


def _etag(record: Record) -> str:
    text = json.dumps([record.id, dict(record.labels), record.state.value], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
