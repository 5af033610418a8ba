"""Common code of the tasks that run a training job: ``submit`` and ``wait``.

These tasks cancel the job when they fail for the last time, count decisions, and reject DAGs with ``fail_fast=True``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airflow.sdk import DAG, BaseOperator, Context
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTerminated,
    TaskDeferred,
)

from mlengine.core.errors import MlengineError
from mlengine.core.job import Decision

log = logging.getLogger(__name__)

# After these exceptions Airflow does not retry the task, even if it has tries left.
_FINAL = (AirflowFailException, AirflowSensorTimeout, AirflowSkipException, AirflowTaskTerminated)


class RefusesFailFast(BaseOperator):
    """An operator that cannot be added to a DAG with ``fail_fast=True``, mapped or not.

    When a task of such a DAG fails, Airflow 3.3 skips the tasks that have not run. After a failed training it skips
    ``validate`` and ``publish``, and a run whose last tasks are skipped is a success. Mapped siblings of the failed
    task are not stopped: their jobs train to the end, and nothing validates the models. The error appears when the DAG
    file is parsed.

    :raises MlengineError: the DAG has ``fail_fast=True``; the message names the DAG and the task.
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
        """The first half of ``partial(…).expand(…)``, as for every operator."""
        made = super().partial(**kwargs)
        _refuse(made.kwargs.get("dag"), made.kwargs["task_id"])
        return made


def _refuse(dag: DAG | None, task_id: str) -> None:
    if dag is not None and dag.fail_fast:
        raise MlengineError(
            f"DAG {dag.dag_id} has fail_fast=True, and its task {task_id} runs training jobs: "
            "a run whose training failed would be marked as successful",
            hint="remove fail_fast=True; tasks downstream of a failed task do not run without it either",
        )


@contextmanager
def job_ends_with_task(context: Context, cancel: Callable[[str], None]) -> Iterator[None]:
    """If the body fails and the task will not be retried, call ``cancel`` with the reason.

    Deferrals and reschedules are not failures, and a task with tries left finds its job again. If ``cancel`` fails, the
    error is logged and the original exception is raised; ``mlengine jobs reap`` finds the job.
    """
    try:
        yield
    except (TaskDeferred, AirflowRescheduleException):
        raise
    except BaseException as error:
        ti = context["ti"]
        own = isinstance(error, MlengineError) and not error.retryable
        if own or isinstance(error, _FINAL) or ti.try_number > (ti.max_tries or 0):
            try:
                cancel(f"the task ended: {type(error).__name__}")
            except Exception:
                log.exception("Could not cancel the job; `mlengine jobs reap` will find it")
        raise


def count(decision: Decision, context: Context, backend: str) -> None:
    """Count a decision as Airflow's metric ``mlengine.<decision>``, with the tags DAG, task and backend.

    The log has the same decision. The metric is sent where Airflow's metrics are sent (``[metrics]`` in its
    configuration).
    """
    from airflow.sdk.observability import stats

    ti = context["ti"]
    stats.incr(f"mlengine.{decision.value}", tags={"dag_id": ti.dag_id, "task_id": ti.task_id, "backend": backend})
