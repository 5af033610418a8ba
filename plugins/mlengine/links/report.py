"""The link from a task to its report's page.

As the job's link: stored when the task ends, however it ends, so a skipped task has it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

from mlengine.core.layout import split_uri

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

    from mlengine.storage.client import Storage

_API, _BROWSER = "https://storage.googleapis.com/", "https://storage.cloud.google.com/"


class ReportLink(BaseOperatorLink):
    """The gate's page about the model; empty before there is one."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """The operator's own ``report_url``, which its ``execute`` has set."""
        return getattr(operator, "report_url", None) or ""


def browser_url(storage: Storage, uri: str) -> str:
    """Where a person's browser finds an object: with their Google login, or on the server that stands in for Google."""
    bucket, path = split_uri(uri)
    url = str(storage.client.bucket(bucket).blob(path).public_url)
    return _BROWSER + url.removeprefix(_API) if url.startswith(_API) else url
