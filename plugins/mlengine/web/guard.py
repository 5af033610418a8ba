"""Who may see and do what, asked of Airflow: its login, its auth manager, its roles.

Airflow asks nobody for anything before it passes a request to a plugin, so every route here depends on :func:`reader`,
by the application it belongs to. What changes something also depends on :func:`same_origin`, and asks
:func:`require_change`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import conf
from fastapi import Depends, HTTPException, Request

# A page of another origin cannot send this header without asking first, and is refused then.
HEADER, WORD = "x-requested-by", "mlengine"


def reader(user: GetUserDep) -> Any:
    """The user, who is logged in and may read at least one DAG.

    :raises HTTPException: 401, 403.
    """
    if not get_auth_manager().is_authorized_dag(method="GET", details=DagDetails(id=None), user=user):
        raise HTTPException(403, "you may not read DAGs")
    return user


ReaderDep = Annotated[Any, Depends(reader)]


def readable(user: Any, dag_ids: Iterable[str]) -> set[str]:
    """Those of the DAGs that the user may read. ``""``, a job of no DAG, is for everybody who may read any."""
    named = {dag_id for dag_id in dag_ids if dag_id}
    return {dag_id for dag_id in named if _may(user, "GET", dag_id)} | {""}


def may_change(user: Any, dag_id: str) -> bool:
    """Whether the user may end runs of the DAG: who may do that may end its jobs, and change its champion.

    For what no DAG has made, whether they may do so with DAGs in general.
    """
    return _may(user, "PUT", dag_id, DagAccessEntity.RUN)


def require_read(user: Any, dag_id: str) -> None:
    """:raises HTTPException: 404, as for what is not there."""
    if dag_id and not _may(user, "GET", dag_id):
        raise HTTPException(404, "no such job")


def require_change(user: Any, dag_id: str) -> None:
    """:raises HTTPException: 403."""
    if not may_change(user, dag_id):
        raise HTTPException(403, f"you may not change runs of {dag_id or 'DAGs'}")


def name_of(user: Any) -> str:
    """Who that is, for the records."""
    return str(user.get_name() or user.get_id())


def same_origin(request: Request) -> None:
    """Only this page, or a program that knows what it does, may change something with a user's cookie.

    :raises HTTPException: 403: the browser says that another site asks; 415: the body is no JSON.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if request.headers.get(HEADER) != WORD:
        raise HTTPException(403, f"send the header {HEADER}: {WORD}")
    if site not in {None, "same-origin"} or (origin is not None and urlsplit(origin).netloc not in _hosts(request)):
        raise HTTPException(403, "this was asked for by another site")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send JSON")


def login_url(next_url: str) -> str:
    """Where a person logs in."""
    return str(get_auth_manager().get_url_login(next_url=next_url))


def _hosts(request: Request) -> set[str]:
    """What this server is called: by the request, and by Airflow's configuration, where a proxy stands before it."""
    configured = urlsplit(conf.get("api", "base_url", fallback="") or "").netloc
    return {request.headers.get("host", ""), configured} - {""}


def _may(user: Any, method: Any, dag_id: str, entity: Any = None) -> bool:
    details = DagDetails(id=dag_id or None, team_name=_team(dag_id))
    allowed = get_auth_manager().is_authorized_dag(method=method, access_entity=entity, details=details, user=user)
    return bool(allowed)


def _team(dag_id: str) -> str | None:
    if not dag_id or not conf.getboolean("core", "multi_team", fallback=False):
        return None
    from airflow.models.dag import DagModel

    team: str | None = DagModel.get_team_name(dag_id)
    return team
