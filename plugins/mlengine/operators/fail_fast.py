"""DAGs with ``fail_fast=True`` cannot have tasks that run training jobs.

When a task of such a DAG fails, Airflow 3.3 skips the tasks that have not run. After a failed training, ``validate``
and ``publish`` are skipped, and a run whose last tasks are skipped is a success. Mapped siblings of the failed task are
not stopped; their jobs train to the end, and nothing validates them. Both is refused when the DAG file is parsed.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, BaseOperator

from mlengine.core.errors import MlengineError


class RefusesFailFast(BaseOperator):
    """An operator that cannot be added to a DAG with ``fail_fast=True``, mapped or not.

    :raises MlengineError: the DAG has it; names the DAG and the task.
    """

    @property
    def dag(self) -> DAG:
        """The operator's DAG."""
        return super().dag

    @dag.setter
    def dag(self, dag: DAG | None) -> None:
        _refuse(dag, self.task_id)
        BaseOperator.dag.fset(self, dag)  # type: ignore[attr-defined]

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """As of every operator: the first half of ``partial(…).expand(…)``."""
        made = super().partial(**kwargs)
        _refuse(made.kwargs.get("dag"), made.kwargs["task_id"])
        return made


def _refuse(dag: DAG | None, task_id: str) -> None:
    if dag is not None and dag.fail_fast:
        raise MlengineError(
            f"DAG {dag.dag_id} has fail_fast=True, and its task {task_id} runs training jobs: "
            "a run whose training failed would end as a success",
            hint="remove fail_fast=True; without it, the tasks after a failed one do not run either",
        )
