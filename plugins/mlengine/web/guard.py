"""Authentication and authorization with Airflow's login and auth manager.

Airflow does not check permissions before it passes a request to a plugin. Therefore, every route of the application
depends on :func:`reader`. Routes that change something also depend on :func:`same_origin` and call
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

# A page of another origin cannot send this header without a preflight request, which fails.
HEADER, HEADER_VALUE = "x-requested-by", "mlengine"
# The same message in both cases, so that it does not reveal which jobs exist.
NO_JOB = "the job does not exist, or you do not have permission to read its DAG"


def reader(user: GetUserDep) -> Any:
    """The user, who is logged in and may read at least one DAG.

    :raises HTTPException: 401 without a login; 403 without that permission.
    """
    if not get_auth_manager().is_authorized_dag(method="GET", details=DagDetails(id=None), user=user):
        raise HTTPException(403, "you do not have permission to read DAGs")
    return user


ReaderDep = Annotated[Any, Depends(reader)]


def readable(user: Any, dag_ids: Iterable[str]) -> set[str]:
    """The DAGs that the user may read, and ``""``: users who may read any DAG may see jobs without a DAG."""
    named = {dag_id for dag_id in dag_ids if dag_id}
    return {dag_id for dag_id in named if _is_authorized(user, "GET", dag_id)} | {""}


def may_change(user: Any, dag_id: str) -> bool:
    """Whether the user may edit runs of the DAG, and so cancel its jobs and change its champion.

    :param dag_id: the DAG's id. It is ``""`` for a job without a DAG. The user then needs permission to edit DAGs in
        general as well as runs, because auth managers accept permission for the runs of one DAG as permission for runs
        in general.
    """
    if not dag_id and not _is_authorized(user, "PUT", ""):
        return False
    return _is_authorized(user, "PUT", dag_id, DagAccessEntity.RUN)


def require_read(user: Any, dag_id: str) -> None:
    """Require permission to read the DAG.

    :raises HTTPException: 404, as for a job that does not exist.
    """
    if dag_id and not _is_authorized(user, "GET", dag_id):
        raise HTTPException(404, NO_JOB)


def require_change(user: Any, dag_id: str) -> None:
    """Require permission to edit runs of the DAG.

    :raises HTTPException: 403 without that permission.
    """
    if not may_change(user, dag_id):
        raise HTTPException(403, f"you do not have permission to edit runs of {dag_id or 'DAGs'}")


def name_of(user: Any) -> str:
    """The user's name in the form in which it is recorded."""
    return str(user.get_name() or user.get_id())


def same_origin(request: Request) -> None:
    """Reject requests that another site sent with the user's cookie.

    :raises HTTPException: 403 if the header is missing or the browser names another site; 415 if the body is not JSON.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if request.headers.get(HEADER) != HEADER_VALUE:
        raise HTTPException(403, f"the request must have the header {HEADER}: {HEADER_VALUE}")
    if site not in {None, "same-origin"} or (origin is not None and urlsplit(origin).netloc not in _hosts(request)):
        raise HTTPException(403, "the request comes from another site")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "the request body must be application/json")


def login_url(next_url: str) -> str:
    """The URL of the login page, which redirects to ``next_url`` after the login."""
    return str(get_auth_manager().get_url_login(next_url=next_url))


def _hosts(request: Request) -> set[str]:
    """This server's host names: the request's, and the configured one, which differs behind a proxy."""
    configured = urlsplit(conf.get("api", "base_url", fallback="") or "").netloc
    return {request.headers.get("host", ""), configured} - {""}


def _is_authorized(user: Any, method: Any, dag_id: str, entity: Any = None) -> bool:
    details = DagDetails(id=dag_id or None, team_name=_team(dag_id))
    allowed = get_auth_manager().is_authorized_dag(method=method, access_entity=entity, details=details, user=user)
    return bool(allowed)


def _team(dag_id: str) -> str | None:
    if not dag_id or not conf.getboolean("core", "multi_team", fallback=False):
        return None
    from airflow.models.dag import DagModel

    team: str | None = DagModel.get_team_name(dag_id)
    return team
