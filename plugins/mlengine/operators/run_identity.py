"""The identity of a task's training: its job key, its DAG run, its Airflow installation.

The job key comes from the task instance. A DAG run's name does not identify it: a run may be deleted and created again
under the same name (a repeated backfill of a ``@weekly`` DAG, a reset database), and two Airflow installations may
train into one bucket. Airflow gives a task no id that separates such runs: a run's ``start_date`` changes when the run
is cleared, a task instance's ``id`` changes with every try, and ``run_after`` is computed from the schedule. So
mlengine creates two ids and stores each where it has the right lifetime:

* ``run_uid`` in Airflow's task state store, which survives retries and clears and is deleted with the run;
* ``installation`` in an Airflow Variable, which is stored in Airflow's database. The scheduler creates it when it
  starts (:mod:`mlengine.listeners.installation`). Where there is none, as in ``dag.test()``, the first task creates it.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, replace

from airflow.sdk import Context

from mlengine.core.job import INSTALLATION_DESCRIPTION, INSTALLATION_VARIABLE, RUN_UID_KEY, JobKey
from mlengine.core.run_order import RunOrder

log = logging.getLogger(__name__)

# The number of earlier keys of a task that are searched; each clear creates one.
_MAX_EARLIER_KEYS = 50


def job_key(context: Context) -> JobKey:
    """The key of this task instance: a retry keeps it, a clear changes it.

    Airflow 3.3 does not record that a task was cleared. It has ``max_tries``: initially ``retries``, and set to
    ``try_number + retries`` by every clear. Try numbers only grow, so each clear raises it; retries and deferrals do
    not change it. That makes it usable as the generation.

    Known limitation: if ``retries`` is lowered in the DAG file between a task's run and its clear, the clear may look
    like a retry and end as ``already_succeeded`` or ``reattached``. Clearing the task once more helps.
    """
    ti = context["ti"]
    return JobKey(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else int(ti.map_index),
        generation=int(ti.max_tries or 0),
    )


def earlier_keys(context: Context) -> tuple[JobKey, ...]:
    """The keys that this task instance may have had before it was cleared; empty on its first try."""
    if context["ti"].try_number <= 1:
        return ()
    key = job_key(context)
    return tuple(replace(key, generation=number) for number in range(key.generation))[-_MAX_EARLIER_KEYS:]


def run_order(context: Context) -> RunOrder:
    """The DAG run's partition key and the date of its data."""
    run = context.get("dag_run")
    dates = ("partition_date", "data_interval_end", "logical_date", "run_after")
    known = [date for name in dates if (date := getattr(run, name, None)) is not None]
    return RunOrder(str(getattr(run, "partition_key", None) or ""), known[0] if known else None)


@dataclass(frozen=True)
class RunIdentity:
    """The ids ``run_uid`` and ``installation``; empty outside of an Airflow task."""

    run_uid: str = ""
    installation: str = ""


def run_identity(context: Context) -> RunIdentity:
    """The ids for a task's context. The first call of a run, or of an installation, creates them.

    :raises AirflowRuntimeError: Airflow's API is unavailable.
    """
    if context.get("task_state_store") is None:
        return RunIdentity()
    return RunIdentity(run_uid(context), _installation())


def run_uid(context: Context) -> str:
    """The run's id; empty outside of an Airflow task.

    :raises AirflowRuntimeError: Airflow's API is unavailable.
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
    """The installation's id; empty if Variables are unavailable: the job is then submitted without the id."""
    from airflow.sdk import Variable
    from airflow.sdk.exceptions import AirflowRuntimeError

    try:
        found = Variable.get(INSTALLATION_VARIABLE, default=None)
        if not found:
            Variable.set(INSTALLATION_VARIABLE, uuid.uuid4().hex, description=INSTALLATION_DESCRIPTION)
            found = Variable.get(INSTALLATION_VARIABLE, default=None)
    except AirflowRuntimeError as error:
        log.warning(
            "Could not read or create the Variable %s; the job does not record its Airflow installation: %s",
            INSTALLATION_VARIABLE,
            error,
        )
        return ""
    return str(found or "")
