"""Who triggered a run: the one thing about a job that only Airflow's database knows."""

from __future__ import annotations

import logging
from collections.abc import Mapping

log = logging.getLogger(__name__)

_AT_ONCE = 500


def triggered_by(runs: set[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
    """The name of the user, or how else the run came about (``scheduled``), for the runs that Airflow knows.

    Only inside the API server, which has the database; that it cannot be asked is logged, and nobody is named.
    """
    try:
        return _asked(runs)
    except Exception:
        log.warning("Airflow does not say who triggered the runs", exc_info=True)
        return {}


def _asked(runs: set[tuple[str, str]]) -> dict[tuple[str, str], str]:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    found = {}
    ids = sorted({run_id for _, run_id in runs})
    with create_session() as session:
        for begin in range(0, len(ids), _AT_ONCE):
            query = select(DagRun.dag_id, DagRun.run_id, DagRun.triggering_user_name, DagRun.run_type).where(
                DagRun.run_id.in_(ids[begin : begin + _AT_ONCE])
            )
            for dag_id, run_id, name, kind in session.execute(query):
                if (dag_id, run_id) in runs:
                    found[dag_id, run_id] = str(name or getattr(kind, "value", kind))
    return found
