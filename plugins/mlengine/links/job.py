"""The links from a task to its job.

Airflow calls ``get_link`` in the worker each time a task ends or defers, and stores the result as an XCom. Therefore,
the links appear while the job runs, and no request is needed to show them. Airflow shows an empty link as a disabled
button.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

from mlengine.links import page

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

    from mlengine.core.layout import JobDir


class _JobDirLink(BaseOperatorLink):
    """A link that depends only on the job directory. It is empty until the task has a job."""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        job_dir = page.job_dir_of(operator)
        return self.url(job_dir) if job_dir else ""

    def url(self, job_dir: JobDir) -> str:
        """The link's URL for a job."""
        raise NotImplementedError


class JobLink(_JobDirLink):
    """The job's page in Airflow, with its state, logs, learning curves, validation report and lineage."""

    name = "Job"

    def url(self, job_dir: JobDir) -> str:
        return page.job_page(job_dir)


class TensorBoardLink(_JobDirLink):
    """The job in TensorBoard."""

    name = "TensorBoard"

    def url(self, job_dir: JobDir) -> str:
        return page.tensorboard(job_dir)


class ModelDirLink(_JobDirLink):
    """The directory of the exported model."""

    name = "Model directory"

    def url(self, job_dir: JobDir) -> str:
        return page.folder(job_dir.model)


class ConsoleLink(BaseOperatorLink):
    """The job's page in the cloud console; empty for backends without one."""

    name = "Cloud console"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """The operator's ``job_url``, which ``execute`` has set."""
        url = getattr(operator, "job_url", None) or ""
        return url if url.startswith(("https://", "http://")) else ""


JOB_LINKS = (JobLink(), ConsoleLink(), TensorBoardLink(), ModelDirLink())
# A task writes one XCom per link, so each task has only the links that its users need.
SUBMIT_LINKS, WAIT_LINKS, VALIDATE_LINKS = JOB_LINKS[:1], JOB_LINKS[:3], (JOB_LINKS[0], JOB_LINKS[3])
