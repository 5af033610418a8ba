"""The identity of a task's intent to train, out of Airflow's context."""

from __future__ import annotations

from typing import Any

from mlengine.core.job import JobKey


def job_key(context: Any) -> JobKey:
    """The key of this task instance: kept by retries, changed by a clear.

    Airflow 3.3 has no word for "this was cleared". It has ``max_tries``: set from ``retries`` when the task instance is
    made, and raised to ``try_number + retries`` by every clear of one that has run. Retries, deferrals and edits of the
    DAG file leave it alone, so it names the generation. A task cleared *while it runs* keeps its number: Airflow treats
    that as a retry, and so does this.
    """
    ti = context["ti"]
    return JobKey(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else int(ti.map_index),
        generation=int(ti.max_tries or 0),
    )
