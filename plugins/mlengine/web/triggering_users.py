"""Reads the users who triggered DAG runs from Airflow's database."""

from __future__ import annotations

import logging
from collections.abc import Mapping

log = logging.getLogger(__name__)

_BATCH = 500


def triggered_by(runs: set[tuple[str, str]]) -> Mapping[tuple[str, str], str] | None:
    """The user who triggered each run, or the run's type (such as ``scheduled``). Unknown runs are omitted.

    The query needs the database, so it works only in the API server.

    :param runs: pairs of DAG id and run id.
    :returns: the users by run; ``None`` if the query fails, which is logged.
    """
    try:
        return _query(runs)
    except Exception:
        log.warning("Could not read the users who triggered the runs from Airflow's database", exc_info=True)
        return None


def _query(runs: set[tuple[str, str]]) -> dict[tuple[str, str], str]:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    found = {}
    ids = sorted({run_id for _, run_id in runs})
    with create_session() as session:
        for begin in range(0, len(ids), _BATCH):
            statement = select(DagRun.dag_id, DagRun.run_id, DagRun.triggering_user_name, DagRun.run_type).where(
                DagRun.run_id.in_(ids[begin : begin + _BATCH])
            )
            for dag_id, run_id, name, kind in session.execute(statement):
                if (dag_id, run_id) in runs:
                    found[dag_id, run_id] = str(name or getattr(kind, "value", kind))
    return found
