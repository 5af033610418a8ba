"""A logging configuration of Airflow with remote logs in the tests' Cloud Storage server.

The provider recognizes a missing object by the text of Google's error, which the server's error lacks. Everything else
is the provider's code.
"""

from __future__ import annotations

from airflow.config_templates.airflow_local_settings import DEFAULT_LOGGING_CONFIG as LOGGING_CONFIG
from airflow.providers.google.cloud.log.gcs_task_handler import GCSRemoteLogIO
from google.api_core.exceptions import NotFound

__all__ = ["DEFAULT_REMOTE_CONN_ID", "LOGGING_CONFIG", "REMOTE_TASK_LOG"]


class EmulatorLogs(GCSRemoteLogIO):
    """Writes logs to the server's bucket."""

    @staticmethod
    def no_log_found(exc: Exception) -> bool:
        return isinstance(exc, NotFound)


REMOTE_TASK_LOG = EmulatorLogs.from_config()
DEFAULT_REMOTE_CONN_ID = None
