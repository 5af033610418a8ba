"""Creates the id of this Airflow installation when the scheduler starts, before any task can submit a job.

Tasks can only read a Variable and then write it, in two steps. If the first two tasks of an installation created the
id, each could record an id of its own, and ``mlengine jobs reap`` would ignore the job of one of them. The scheduler
writes to the database, where a key exists once.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

from airflow.listeners import hookimpl

from mlengine.core.job import INSTALLATION_DESCRIPTION, INSTALLATION_VARIABLE
from mlengine.listeners.starting import is_starting

log = logging.getLogger(__name__)


@hookimpl
def on_starting(component: Any) -> None:
    """Called when one of Airflow's components starts, and in each task."""
    if not is_starting(component, "scheduler"):
        return
    try:
        create_id()
    except Exception:
        log.exception("Could not create the Variable %s; the first task will create it", INSTALLATION_VARIABLE)


def create_id() -> None:
    """Create the Variable, unless it exists. Several schedulers may do this at the same time."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.exc import IntegrityError

    try:
        with create_session(scoped=False) as session:
            if session.scalar(select(Variable.id).where(Variable.key == INSTALLATION_VARIABLE)) is None:
                session.add(Variable(INSTALLATION_VARIABLE, uuid.uuid4().hex, INSTALLATION_DESCRIPTION))
    except IntegrityError:
        log.info("Another scheduler has created the Variable %s", INSTALLATION_VARIABLE)
