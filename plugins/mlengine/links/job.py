"""The links from a task to its job.

Airflow asks for them in the worker at the end of each leg of a task, deferring included, and stores the answers: so
they are there while the job runs, and cost nothing when the page is drawn. One that is empty is shown as a button that
leads nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

from mlengine.links import page

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class JobLink(BaseOperatorLink):
    """The job's page in this Airflow: state, logs of all replicas, curves, report, lineage."""

    name = "Job"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        job_dir = page.job_dir_of(operator)
        return page.job_page(job_dir) if job_dir else ""


class ConsoleLink(BaseOperatorLink):
    """The training service's own page about the job; empty where there is none that a browser opens."""

    name = "Console"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """The operator's own ``job_url``, which its ``execute`` has set."""
        url = getattr(operator, "job_url", None) or ""
        return url if url.startswith(("https://", "http://")) else ""


class TensorBoardLink(BaseOperatorLink):
    """The job's curves in TensorBoard."""

    name = "TensorBoard"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        job_dir = page.job_dir_of(operator)
        return page.tensorboard(job_dir) if job_dir else ""


class ModelDirLink(BaseOperatorLink):
    """The folder with the exported model."""

    name = "Model dir"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        job_dir = page.job_dir_of(operator)
        return page.folder(job_dir.model) if job_dir else ""


# What every task about a job has.
JOB_LINKS = (JobLink(), ConsoleLink(), TensorBoardLink(), ModelDirLink())
