"""The link from a task to its validation report.

Airflow stores this link when the task ends, like the links to the job. Therefore, skipped tasks also have it.
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
    """The validation report of the model. The link is empty until the report exists."""

    name = "Validation report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """The operator's ``report_url``, which ``execute`` has set."""
        return getattr(operator, "report_url", None) or ""


def browser_url(storage: Storage, uri: str) -> str:
    """The URL at which a browser can open an object, with the user's Google login or from the emulator."""
    bucket, path = split_uri(uri)
    url = str(storage.client.bucket(bucket).blob(path).public_url)
    return _BROWSER + url.removeprefix(_API) if url.startswith(_API) else url
