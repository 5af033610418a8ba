"""Chains of seven tasks that do nothing: the baseline cost of a run with seven tasks, without any of our code."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, BaseOperator, chain

TASKS = 7


class Nothing(BaseOperator):
    """A task that does nothing: the cost of any task."""

    def execute(self, context: Any) -> dict[str, str]:  # noqa: ARG002
        return {"nothing": "done"}


with DAG("nothing", schedule=None, catchup=False, max_active_runs=8, default_args={"retries": 0}):
    chain(*[Nothing(task_id=f"task_{number}") for number in range(TASKS)])


class Handing(BaseOperator):
    """A task with a template and with the previous task's result as input: the cost of any such task."""

    template_fields = ("given", "when")

    def __init__(self, *, given: Any = None, when: str = "{{ dag_run.run_after.isoformat() }}", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.given = given
        self.when = when

    def execute(self, context: Any) -> dict[str, str]:  # noqa: ARG002
        return {"nothing": "done"}


with DAG("handing", schedule=None, catchup=False, max_active_runs=8, default_args={"retries": 0}):
    before = None
    for number in range(TASKS):
        before = Handing(task_id=f"task_{number}", given=before.output if before else None)
