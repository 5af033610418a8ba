"""The link from a task to its job.

Airflow asks for it in the worker at the end of each leg of a task, deferring included, and stores the answer: so it is
there while the job runs, and costs nothing when the page is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class JobLink(BaseOperatorLink):
    """Where a person looks at the job; empty where the backend has no such place."""

    name = "Job"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """The operator's own ``job_url``, which its ``execute`` has set."""
        return getattr(operator, "job_url", None) or ""
