"""Common code of the job APIs: creating a job, its times, and lists with filters and pages."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mlengine.backends import Submission
from mlengine.core.errors import EmulatorApiError
from mlengine.core.times import rfc3339
from mlengine.emulator.engine import Engine
from mlengine.emulator.filters import VERTEX_OPERATORS, parse
from mlengine.emulator.http import Request, page
from mlengine.emulator.job_faults import JobFaults
from mlengine.emulator.records import VERTEX, Record, pack
from mlengine.storage.client import Storage

_PROJECT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.-]{0,62}")
_LOCATION = re.compile(r"[a-z][a-z0-9-]{0,39}")


class JobApi:
    """The methods of one API. Each takes a :class:`~mlengine.emulator.http.Request` and returns JSON.

    :param engine: the jobs.
    :param storage: the client for uploading the package of the replica adapter.
    :param bucket: the bucket for the logs of jobs that name no bucket.
    """

    name: str
    filters: Mapping[str, str]  # the names that a filter may use → the field of the JSON
    limit: int  # the largest page
    default: int  # the size of a page if none is requested

    def __init__(self, engine: Engine, storage: Storage, bucket: str | None) -> None:
        self._engine, self._storage, self._bucket = engine, storage, bucket

    def _take(
        self, request: Request, job_id: str, body: Mapping[str, Any], submission: Submission, notes: Sequence[str]
    ) -> Record:
        """Create a job.

        :param body: the job as the client sent it.
        :param submission: the submission for the backend.
        :param notes: messages for the job's log.
        :raises EmulatorApiError: ALREADY_EXISTS if there is a job with the id.
        """
        now = time.time()
        project, region = parent_of(request)
        record = Record(
            api=self.name,
            project=project,
            region=region,
            id=job_id,
            body=body,
            submission=pack(submission),
            created=now,
            updated=now,
            notes=tuple(notes),
            stuck=request.stuck,
            faults=JobFaults.of(request.faults, now, region),
        )
        return self._engine.create(record)

    def _page(self, request: Request, jobs: list[dict[str, Any]]) -> tuple[Sequence[dict[str, Any]], str]:
        """One page of the jobs that match the request's filter, and the token of the next page."""
        query = request.query
        allowed = VERTEX_OPERATORS if self.name == VERTEX else None
        condition = parse(query.get("filter", ""), frozenset(self.filters), allowed)
        found = [job for job in jobs if condition.matches(partial(self._field, job))]
        return page(found, query.get("pageSize"), query.get("pageToken"), self.limit, default=self.default)

    def _field(self, job: Mapping[str, Any], name: str) -> str | None:
        if name.startswith("labels."):
            label: str | None = job.get("labels", {}).get(name.removeprefix("labels."))
            return label
        return job.get(self.filters[name])


def parent_of(request: Request) -> tuple[str, str]:
    """The project and location of a request. The location is empty for ML Engine, whose jobs belong to a project.

    :raises EmulatorApiError: the project or the location is not a valid name.
    """
    project, location = request.path["project"], request.path.get("location", "")
    if not _PROJECT.fullmatch(project):
        raise EmulatorApiError(f"Invalid project: {project!r}")
    if location and not _LOCATION.fullmatch(location):
        raise EmulatorApiError(f"Invalid location: {location!r}")
    return project, location


def times(record: Record) -> dict[str, str]:
    """The times of the job's creation, start and end, each if it has happened."""
    moments = {"createTime": record.created, "startTime": record.started, "endTime": record.ended}
    return {name: rfc3339(moment) for name, moment in moments.items() if moment is not None}
