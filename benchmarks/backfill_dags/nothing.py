"""A chain of seven tasks that do nothing: what any run of seven tasks costs, without a line of ours."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, BaseOperator, chain

TASKS = 7


class Nothing(BaseOperator):
    """What any task costs."""

    def execute(self, context: Any) -> dict[str, str]:  # noqa: ARG002
        return {"nothing": "done"}


with DAG("nothing", schedule=None, catchup=False, max_active_runs=8, default_args={"retries": 0}):
    chain(*[Nothing(task_id=f"task_{number}") for number in range(TASKS)])
