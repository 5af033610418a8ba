"""What the faces have in common: taking a job, showing its times, and listing with a filter, page by page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mlengine.backends import Submission
from mlengine.core.times import rfc3339
from mlengine.emulator.engine import Engine
from mlengine.emulator.filters import parse
from mlengine.emulator.http import Request, page
from mlengine.emulator.records import Record, pack
from mlengine.storage.client import Storage


class Face:
    """One service's methods; each takes a :class:`~mlengine.emulator.http.Request` and returns JSON.

    :param storage: where the service puts the one package of its own.
    :param bucket: where jobs that name no bucket leave their logs.
    """

    name: str
    filters: Mapping[str, str]  # what a filter may name → the field of the JSON
    most: int  # jobs on a page

    def __init__(self, engine: Engine, storage: Storage, bucket: str | None) -> None:
        self._engine, self._storage, self._bucket = engine, storage, bucket

    def _take(
        self, request: Request, job_id: str, body: Mapping[str, Any], what: tuple[Submission, list[str]]
    ) -> Record:
        """Hand a new job to the engine.

        :param what: what the backend is handed, and sentences for the job's log.
        :raises ServiceRefusalError: ALREADY_EXISTS.
        """
        submission, notes = what
        now = time.time()
        record = Record(
            face=self.name,
            project=request.path["project"],
            region=request.path.get("location", ""),
            id=job_id,
            body=body,
            submission=pack(submission),
            created=now,
            updated=now,
            notes=tuple(notes),
            stuck=request.stuck,
        )
        return self._engine.create(record)

    def _page(self, request: Request, jobs: list[dict[str, Any]]) -> tuple[Sequence[dict[str, Any]], str]:
        """Those of ``jobs`` that the request's filter lets through, one page of them, and the next page's token."""
        condition = parse(request.query.get("filter", ""), frozenset(self.filters))
        return page([job for job in jobs if condition.matches(partial(self._field, job))], request.query, self.most)

    def _field(self, job: Mapping[str, Any], name: str) -> str | None:
        if name.startswith("labels."):
            label: str | None = job.get("labels", {}).get(name.removeprefix("labels."))
            return label
        return job.get(self.filters[name])


def times(record: Record) -> dict[str, str]:
    """When it was created, started and ended, as far as that has happened."""
    moments = {"createTime": record.created, "startTime": record.started, "endTime": record.ended}
    return {name: rfc3339(moment) for name, moment in moments.items() if moment is not None}
