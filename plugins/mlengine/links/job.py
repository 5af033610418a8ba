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

    from mlengine.core.layout import JobDir


class _ToJob(BaseOperatorLink):
    """A link that follows from the job dir alone; empty before there is one."""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        job_dir = page.job_dir_of(operator)
        return self.lead(job_dir) if job_dir else ""

    def lead(self, job_dir: JobDir) -> str:
        raise NotImplementedError


class JobLink(_ToJob):
    """The job's page in this Airflow: state, logs of all replicas, curves, report, lineage."""

    name = "Job"

    def lead(self, job_dir: JobDir) -> str:
        return page.job_page(job_dir)


class TensorBoardLink(_ToJob):
    """The job's curves in TensorBoard."""

    name = "TensorBoard"

    def lead(self, job_dir: JobDir) -> str:
        return page.tensorboard(job_dir)


class ModelDirLink(_ToJob):
    """The folder with the exported model."""

    name = "Model dir"

    def lead(self, job_dir: JobDir) -> str:
        return page.folder(job_dir.model)


class ConsoleLink(BaseOperatorLink):
    """The training service's own page about the job; empty where there is none that a browser opens."""

    name = "Console"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """The operator's own ``job_url``, which its ``execute`` has set."""
        url = getattr(operator, "job_url", None) or ""
        return url if url.startswith(("https://", "http://")) else ""


JOB_LINKS = (JobLink(), ConsoleLink(), TensorBoardLink(), ModelDirLink())
# Each link is an XCom that the task writes at its end, so each has those alone that a person looks for there.
SUBMIT_LINKS, WAIT_LINKS, VALIDATE_LINKS = JOB_LINKS[:1], JOB_LINKS[:3], (JOB_LINKS[0], JOB_LINKS[3])
