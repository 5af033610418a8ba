"""The identity of a task's intent to train, out of Airflow's context."""

from __future__ import annotations

from dataclasses import replace

from airflow.sdk import Context

from mlengine.core.job import JobKey
from mlengine.core.run_order import RunOrder

# How many earlier lives of a task are looked for; each clear makes one.
_MOST_LIVES = 50


def job_key(context: Context) -> JobKey:
    """The key of this task instance: kept by retries, changed by a clear.

    Airflow 3.3 has no word for "this was cleared". It has ``max_tries``: set from ``retries`` when the task instance is
    made, and set to ``try_number + retries`` by every clear. Try numbers only grow, so each clear raises it; retries
    and deferrals leave it alone. So it names the generation. It fails to in one case: ``retries`` was lowered in the
    DAG file between a task's run and its clear; the clear may then be taken for a retry, and answered with
    ``already_succeeded`` or ``reattached``. Clearing once more helps.
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
    """The keys that this task instance may have had before it was cleared; none on its first try."""
    if context["ti"].try_number <= 1:
        return ()
    key = job_key(context)
    return tuple(replace(key, generation=number) for number in range(key.generation))[-_MOST_LIVES:]


def run_order(context: Context) -> RunOrder:
    """What the DAG run is about: its partition key, and the moment as of which its data are meant."""
    run = context.get("dag_run")
    dates = ("partition_date", "data_interval_end", "logical_date", "run_after")
    known = [date for name in dates if (date := getattr(run, name, None)) is not None]
    return RunOrder(str(getattr(run, "partition_key", None) or ""), known[0] if known else None)
