"""The decisions as Airflow's metrics: ``mlengine.<decision>``, one a decision, by the same word as in the log.

They go where Airflow's own go (StatsD, OpenTelemetry; ``[metrics]`` in its configuration), and nowhere if that is off.
Tags: the DAG, the task and the backend.
"""

from __future__ import annotations

from typing import Any

from mlengine.core.job import Decision


def count(decision: Decision, context: Any, backend: str) -> None:
    """One decision of the task in ``context``."""
    from airflow.sdk.observability import stats

    ti = context["ti"]
    stats.incr(f"mlengine.{decision.value}", tags={"dag_id": ti.dag_id, "task_id": ti.task_id, "backend": backend})
