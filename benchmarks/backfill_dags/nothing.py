"""Chains of seven tasks that do nothing: what any run of seven tasks costs, without a line of ours."""

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


class Handing(BaseOperator):
    """What any task costs that has a template, and takes a result of the one before."""

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
