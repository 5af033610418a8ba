"""The page's API. Every route is a plain function, so FastAPI runs it in a thread and not in the event loop."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Response
from pydantic import BaseModel, Field

from mlengine import settings
from mlengine.backends import TrainingBackend
from mlengine.champions import history as champions
from mlengine.connections import CloudAccess
from mlengine.core import plaintext
from mlengine.core.errors import BackendError, MlengineError, StorageError
from mlengine.core.job import JobState, JobStatus, dag_of
from mlengine.core.layout import JobDir
from mlengine.job_index.reading import Claimed, CurrentJob, read_claim
from mlengine.job_index.rows import Row
from mlengine.links.page import tensorboard
from mlengine.storage.client import Storage
from mlengine.web import actions, drift, guard, jobs, models
from mlengine.web.guard import ReaderDep
from mlengine.web.index import Index, View
from mlengine.web.listing import JobFilter, Listing, Listings
from mlengine.web.triggering_users import triggered_by

router = APIRouter(prefix="/api")
_listings = Listings()

# Anyone who can write to the bucket can write a report. Therefore, a report may be rendered, but not run scripts.
_REPORT_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'"


class Reason(BaseModel):
    """The body of a change: the reason, which is recorded."""

    reason: str = Field(min_length=1, max_length=actions.MAX_REASON_LENGTH, pattern=r"\S")

    @property
    def line(self) -> str:
        """The reason as one line without control sequences, because logs and tables show it."""
        return plaintext.joined(self.reason)


class RollbackRequest(Reason):
    """The body of a rollback.

    :param to: a serial in the history; by default that of the previous champion.
    :param shown: the serial of the champion that the user saw; any other champion is not replaced.
    """

    to: int | None = Field(default=None, ge=1)
    shown: int | None = Field(default=None, ge=1)


class LogPosition(BaseModel):
    """The position at which reading a log continues.

    :param cursor: the cursor of the previous page; empty for the first page. Vertex AI's has up to 2,000 times and
        digests.
    :param attempt: the number of the attempt; ``None`` for the latest one.
    """

    cursor: str = Field(default="", max_length=400_000)
    attempt: int | None = Field(default=None, ge=1)


@router.get("/jobs")
def list_jobs(user: ReaderDep, query: Annotated[JobFilter, Query()]) -> dict[str, Any]:
    """One page of the matching jobs that the user may see."""
    view, listing = _visible(user)
    matching = listing.matching(query)
    return {
        "jobs": [row.to_json() for row in matching[query.offset : query.offset + query.limit]],
        "total": len(matching),
        "active": listing.active,
        "models": listing.models,
        "at": view.at,
        "error": view.error,
        "bucket": _bucket(),
    }


@router.get("/jobs/{model}/{job_id}")
def one_job(user: ReaderDep, model: str, job_id: str) -> dict[str, Any]:
    job = _job(user, model, job_id)
    return {
        **jobs.detail(_storage(), job),
        "may_change": guard.may_change(user, dag_of(job.claim.record.owner)),
        "tensorboard": tensorboard(job.claim.job_dir) if settings.get("tensorboard_url") else "",
        "console": _console(job.claim),
        "links": _links(job.status),
    }


@router.get("/jobs/{model}/{job_id}/logs")
def logs(
    user: ReaderDep, model: str, job_id: str, attempt: Annotated[int | None, Query(ge=1)] = None
) -> dict[str, Any]:
    """The first page of a job's log."""
    return more_logs(user, model, job_id, LogPosition(attempt=attempt))


@router.post("/jobs/{model}/{job_id}/logs")
def more_logs(user: ReaderDep, model: str, job_id: str, body: LogPosition) -> dict[str, Any]:
    """The lines after a cursor. This is a POST request, because a cursor may be too long for a URL."""
    claim = _job(user, model, job_id).claim
    return jobs.log_page(_storage(), _backend(claim.record.backend), claim, body.cursor, body.attempt)


@router.get("/jobs/{model}/{job_id}/report")
def report(user: ReaderDep, model: str, job_id: str, theme: str = "") -> Response:
    page = jobs.report_page(_storage(), _job(user, model, job_id).claim.job_dir, theme)
    return Response(page, media_type="text/html", headers={"content-security-policy": _REPORT_POLICY})


@router.post("/jobs/{model}/{job_id}/cancel", dependencies=[Depends(guard.same_origin)])
def cancel(user: ReaderDep, model: str, job_id: str, body: Reason) -> dict[str, Any]:
    job = _job(user, model, job_id)
    guard.require_change(user, dag_of(job.claim.record.owner))
    backend = _connected(job.claim.record.backend)
    actions.cancel(_storage(), backend, job.claim.job_dir, by=guard.name_of(user), why=body.line)
    return {"row": _job(user, model, job_id).row.to_json()}


@router.get("/models")
def list_models(user: ReaderDep) -> dict[str, Any]:
    view, listing = _visible(user)
    return {"models": models.overview(_storage(), _bucket(), listing.rows), "at": view.at, "error": view.error}


@router.get("/models/{model}")
def one_model(user: ReaderDep, model: str) -> dict[str, Any]:
    rows = _of_model(user, model)
    found = models.one(_storage(), _bucket(), model, rows)
    return {**found, "may_change": guard.may_change(user, _champion_dag(model))}


@router.get("/models/{model}/drift")
def model_drift(user: ReaderDep, model: str) -> dict[str, Any]:
    return drift.drift(_storage(), _bucket(), model, _of_model(user, model))


@router.post("/models/{model}/rollback", dependencies=[Depends(guard.same_origin)])
def rollback(user: ReaderDep, model: str, body: RollbackRequest) -> dict[str, Any]:
    _of_model(user, model)
    guard.require_change(user, _champion_dag(model))
    champion = actions.roll_back(
        _storage(),
        _bucket(),
        model,
        by=guard.name_of(user),
        why=body.line,
        to=body.to,
        shown=body.shown,
    )
    models.champions.changed(_bucket(), model)
    return {"champion": champion.brief(), "serial": champion.serial}


def _visible(user: Any) -> tuple[View, Listing]:
    """The current view, and its listing without the jobs of DAGs that the user may not read."""
    view = _index().view()
    allowed = guard.readable(user, set(_listings.dags(view)))
    return view, _listings.of(view, frozenset(allowed))


def _of_model(user: Any, model: str) -> list[Row]:
    """The model's jobs that the user may see.

    :raises HTTPException: 404 if there are none; 503 if the bucket was not read yet.
    """
    view, listing = _visible(user)
    rows = [row for row in listing.rows if row.model == model]
    if not rows and view.at is None:
        raise HTTPException(503, view.error or "the bucket is being read; try again in a moment")
    if not rows:
        raise HTTPException(404, "the model does not exist, or you do not have permission to read the DAGs of its jobs")
    return rows


def _job(user: Any, model: str, job_id: str) -> CurrentJob:
    """One job, read now.

    :raises HTTPException: 404 if it does not exist or the user may not see it.
    """
    if "/" in job_id or job_id in {"", ".", ".."}:
        raise HTTPException(404, guard.NO_JOB)
    try:
        job_dir = JobDir.of(_bucket(), model, job_id)
    except StorageError as error:
        raise HTTPException(404, guard.NO_JOB) from error
    found = _index().read(job_dir)
    if found is None:
        raise HTTPException(404, guard.NO_JOB)
    guard.require_read(user, dag_of(found.claim.record.owner))  # by the record; the row may be wrong
    return found


def _champion_dag(model: str) -> str:
    """The DAG that trained the champion; ``""`` if no DAG trained it, or if the DAG is unknown.

    It is read from the champion's job. The rows of the index could be out of date, or limited to those that the user
    may see.
    """
    champion = champions.current(_storage(), _bucket(), model)
    if champion is None:
        return ""
    claim = read_claim(_storage(), JobDir(champion.job_dir))
    return dag_of(champion.publisher if claim is None else claim.record.owner)


def _console(claim: Claimed) -> str:
    """The URL of the job's page in the backend's console; empty if there is none, or the backend cannot be reached."""
    backend, handle = _backend(claim.record.backend), claim.handle
    if backend is None or handle is None:
        return ""
    try:
        url = backend.console_url(handle) or ""
    except MlengineError:
        return ""
    return url if url.startswith("https://") else ""


def _links(status: JobStatus | None) -> dict[str, str]:
    """URLs of the web pages that give access to a running job, by replica."""
    if status is None or status.state != JobState.RUNNING:
        return {}
    return {replica: url for replica, url in status.links.items() if url.startswith("https://")}


@lru_cache(maxsize=1)
def _index() -> Index:
    return Index(_storage(), _bucket(), _backend, triggered_by)


def _storage() -> Storage:
    return CloudAccess().storage()


def _bucket() -> str:
    return CloudAccess().bucket()


def _backend(name: str) -> TrainingBackend | None:
    """The backend, as :func:`_connected` returns it; ``None`` if that fails."""
    try:
        return _connected(name)
    except MlengineError:
        return None


@lru_cache(maxsize=8)
def _connected(name: str) -> TrainingBackend:
    """The backend with Airflow's configuration, without the options of a DAG. A failure is not cached.

    :raises MlengineError: the job was not submitted, the backend does not exist, or its settings are invalid.
    """
    if not name:
        raise BackendError("the job was not submitted to a backend")
    return CloudAccess().backend(name)


def clear_caches() -> None:
    """Drop the index, the backends and the champions, so that changed settings take effect. Used by tests."""
    models.champions.clear()
    _index.cache_clear()
    _connected.cache_clear()
