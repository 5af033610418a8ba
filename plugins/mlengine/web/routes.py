"""What the page asks for. Every route is a plain function: FastAPI runs it in a thread, not in the event loop."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Response
from pydantic import BaseModel, Field

from mlengine import settings
from mlengine.backends import TrainingBackend
from mlengine.connections import CloudAccess
from mlengine.core.errors import MlengineError, StorageError
from mlengine.core.job import JobState
from mlengine.core.layout import JobDir
from mlengine.links.page import tensorboard
from mlengine.storage.client import Storage
from mlengine.web import actions, guard, jobs, models
from mlengine.web.guard import ReaderDep
from mlengine.web.index import Index, View
from mlengine.web.people import triggered_by
from mlengine.web.rows import Claimed, Row

router = APIRouter(prefix="/api")

# The report is a page of its own, written by whoever could write to the bucket: it may draw, and do nothing else.
_REPORT_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'"


class Reason(BaseModel):
    """Why somebody does what they do; kept."""

    reason: str = Field(min_length=1, max_length=actions.LONGEST_REASON, pattern=r"\S")


class RollbackOrder(Reason):
    """:param to: a serial of the history; without it, the champion before this one."""

    to: int | None = Field(default=None, ge=1)


class Wanted(BaseModel):
    """Which jobs.

    :param state: a state, or ``live`` or ``past``; ``text`` is looked for in all that names a job.
    """

    model: str = ""
    state: str = ""
    text: str = Field(default="", max_length=200)
    dag_id: str = ""
    run_id: str = ""
    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=50, ge=1, le=200)

    def fits(self, row: Row) -> bool:
        states = {"", row.state, "past" if JobState(row.state).terminal else "live"}
        words = f"{row.job_id} {row.dag_id} {row.run_id} {row.by} {row.dataset} {row.verdict}".lower()
        return (
            self.model in {"", row.model}
            and self.state in states
            and self.dag_id in {"", row.dag_id}
            and self.run_id in {"", row.run_id}
            and self.text.lower() in words
        )


@router.get("/jobs")
def list_jobs(user: ReaderDep, wanted: Annotated[Wanted, Query()]) -> dict[str, Any]:
    """The jobs that the user may see and that fit, a page of them."""
    view, rows = _visible(user)
    fitting = [row for row in rows if wanted.fits(row)]
    return {
        "jobs": [row.to_json() for row in fitting[wanted.offset : wanted.offset + wanted.limit]],
        "total": len(fitting),
        "live": sum(not JobState(row.state).terminal for row in rows),
        "models": sorted({row.model for row in rows}),
        "at": view.at,
        "error": view.error,
        "bucket": _bucket(),
    }


@router.get("/jobs/{model}/{job_id}")
def one_job(user: ReaderDep, model: str, job_id: str) -> dict[str, Any]:
    claim, row = _job(user, model, job_id)
    return {
        **jobs.detail(_storage(), claim, row),
        "may_change": guard.may_change(user, row.dag_id),
        "tensorboard": tensorboard(claim.job_dir) if settings.get("tensorboard_url") else "",
        "console": _console(claim),
    }


@router.get("/jobs/{model}/{job_id}/logs")
def logs(
    user: ReaderDep,
    model: str,
    job_id: str,
    cursor: Annotated[str, Query(max_length=4000)] = "",
    attempt: Annotated[int | None, Query(ge=1)] = None,
) -> dict[str, Any]:
    claim, _ = _job(user, model, job_id)
    return jobs.log_page(_storage(), _backend(claim.record.backend), claim, cursor, attempt)


@router.get("/jobs/{model}/{job_id}/report")
def report(user: ReaderDep, model: str, job_id: str, theme: str = "") -> Response:
    claim, _ = _job(user, model, job_id)
    page = jobs.report_page(_storage(), claim.job_dir, theme)
    return Response(page, media_type="text/html", headers={"content-security-policy": _REPORT_POLICY})


@router.post("/jobs/{model}/{job_id}/cancel", dependencies=[Depends(guard.same_origin)])
def cancel(user: ReaderDep, model: str, job_id: str, body: Reason) -> dict[str, Any]:
    claim, row = _job(user, model, job_id)
    guard.require_change(user, row.dag_id)
    backend = _backend(claim.record.backend)
    if backend is None:
        raise HTTPException(409, f"backend {claim.record.backend!r} cannot be reached from here")
    actions.cancel(_storage(), backend, claim.job_dir, by=guard.name_of(user), why=body.reason.strip())
    return {"row": _job(user, model, job_id)[1].to_json()}


@router.get("/models")
def list_models(user: ReaderDep) -> dict[str, Any]:
    view, rows = _visible(user)
    return {"models": models.overview(_storage(), _bucket(), rows), "at": view.at, "error": view.error}


@router.get("/models/{model}")
def one_model(user: ReaderDep, model: str) -> dict[str, Any]:
    rows = _of_model(user, model)
    found = models.one(_storage(), _bucket(), model, rows)
    return {**found, "may_change": guard.may_change(user, _maker(found, rows))}


@router.post("/models/{model}/rollback", dependencies=[Depends(guard.same_origin)])
def rollback(user: ReaderDep, model: str, body: RollbackOrder) -> dict[str, Any]:
    rows = _of_model(user, model)
    guard.require_change(user, _maker(models.one(_storage(), _bucket(), model, rows), rows))
    made = actions.roll_back(_storage(), _bucket(), model, by=guard.name_of(user), why=body.reason.strip(), to=body.to)
    return {"champion": made.brief(), "serial": made.serial}


def _visible(user: Any) -> tuple[View, list[Row]]:
    """What is known, without the jobs of DAGs that the user may not read."""
    view = _index().view()
    allowed = guard.readable(user, {row.dag_id for row in view.rows})
    return view, [row for row in view.rows if row.dag_id in allowed]


def _of_model(user: Any, model: str) -> list[Row]:
    """:raises HTTPException: 404: the user sees no job of this model."""
    rows = [row for row in _visible(user)[1] if row.model == model]
    if not rows:
        raise HTTPException(404, "no such model")
    return rows


def _job(user: Any, model: str, job_id: str) -> tuple[Claimed, Row]:
    """One job as it is now. :raises HTTPException: 404: there is none, or the user may not see it."""
    if "/" in job_id or job_id in {"", ".", ".."}:
        raise HTTPException(404, "no such job")
    try:
        job_dir = JobDir.of(_bucket(), model, job_id)
    except StorageError as error:
        raise HTTPException(404, "no such job") from error
    found = _index().read(job_dir)
    if found is None:
        raise HTTPException(404, "no such job")
    guard.require_read(user, found[1].dag_id)
    return found


def _maker(found: dict[str, Any], rows: list[Row]) -> str:
    """The DAG that trained the champion; ``""`` if none did, or its job is gone."""
    champion = (found["champion"] or {}).get("job_id")
    return next((row.dag_id for row in rows if row.job_id == champion), "")


def _console(claim: Claimed) -> str:
    """The service's own page about the job, if a browser can open it."""
    backend, handle = _backend(claim.record.backend), claim.handle
    url = (backend.console_url(handle) or "") if backend is not None and handle is not None else ""
    return url if url.startswith("https://") else ""


@lru_cache(maxsize=1)
def _index() -> Index:
    return Index(_storage(), _bucket(), _backend, triggered_by)


def _storage() -> Storage:
    return CloudAccess().storage()


def _bucket() -> str:
    return CloudAccess().bucket()


@lru_cache(maxsize=8)
def _backend(name: str) -> TrainingBackend | None:
    """With the settings of Airflow's configuration; a DAG's own options are not known here."""
    try:
        return CloudAccess().backend(name) if name else None
    except MlengineError:
        return None


def forget() -> None:
    """Begin anew with other settings: for tests."""
    _index.cache_clear()
    _backend.cache_clear()
