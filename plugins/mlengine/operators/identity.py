"""Which DAG run, of which Airflow: what a run's name does not say.

Two runs may have one name: a run that was deleted and the one created after it (a repeated backfill of a ``@weekly``
DAG, a reset database), or runs of two Airflow installations that train into one bucket. A task is given no id that
tells them apart: a run's ``start_date`` changes when the run is cleared, a task instance's ``id`` with every try, and
``run_after`` is computed from the schedule. So both ids are made here, once, and kept where their lifetime is right:

* ``run_uid`` in Airflow's task state store, which retries and clears leave alone and which is deleted with the run;
* ``installation`` in an Airflow Variable, which is there as long as Airflow's database.

Known limit: two tasks that are the very first of an installation, in the same instant, may note different installation
ids. The only consequence is that the job of one of them is taken for another Airflow's by ``mlengine jobs reap``.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass

from airflow.sdk import Context

from mlengine.core.job import INSTALLATION_VARIABLE, RUN_UID_KEY

log = logging.getLogger(__name__)

_DESCRIPTION = "Which Airflow submitted a training job; noted in each job.json. Made by mlengine: do not change it."


@dataclass(frozen=True)
class RunIdentity:
    """Both ids; empty outside of a task that Airflow runs."""

    run_uid: str = ""
    installation: str = ""


def run_identity(context: Context) -> RunIdentity:
    """The ids for a task's context; the first call for a run, or an Airflow, makes them.

    :raises AirflowRuntimeError: Airflow's API does not answer now.
    """
    if context.get("task_state_store") is None:
        return RunIdentity()
    return RunIdentity(run_uid(context), _installation())


def run_uid(context: Context) -> str:
    """The run's id alone; empty outside of a task that Airflow runs.

    :raises AirflowRuntimeError: Airflow's API does not answer now.
    """
    from airflow.sdk.execution_time.context import NEVER_EXPIRE

    store = context.get("task_state_store")
    if store is None:
        return ""
    found = store.get(RUN_UID_KEY)
    if not found:
        found = uuid.uuid4().hex
        store.set(RUN_UID_KEY, found, retention=NEVER_EXPIRE)
    return str(found)


def _installation() -> str:
    """Empty if Variables cannot be used: jobs are submitted all the same."""
    from airflow.sdk import Variable
    from airflow.sdk.exceptions import AirflowRuntimeError

    try:
        found = Variable.get(INSTALLATION_VARIABLE, default=None)
        if not found:
            Variable.set(INSTALLATION_VARIABLE, uuid.uuid4().hex, description=_DESCRIPTION)
            found = Variable.get(INSTALLATION_VARIABLE, default=None)
    except AirflowRuntimeError as error:
        log.warning(
            "Variable %s cannot be used; the job is not marked as this Airflow's: %s", INSTALLATION_VARIABLE, error
        )
        return ""
    return str(found or "")
