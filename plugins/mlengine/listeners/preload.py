"""What every stage needs is imported once, in the scheduler, and not in every task.

``LocalExecutor`` forks its tasks from the scheduler: they begin with what it has imported. Other executors start their
tasks elsewhere, where this has no effect. Imports only: no client is made, no connection opened.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Any

from airflow.listeners import hookimpl

log = logging.getLogger(__name__)

_NEEDED = (
    "google.cloud.storage",
    "google.auth",
    "google_crc32c",
    "jinja2.ext",
    "netrc",
    "airflow.sdk.bases.hook",
    "airflow.sdk.execution_time.cache",
    "airflow.sdk.observability.stats",
    "mlengine.task_groups",
    "mlengine.storage.credentials",
    "mlengine.packaging.publish",
    "mlengine.datasets.catalog",
    "mlengine.datasets.version_hints",
    "mlengine.backends.local.backend",
    "mlengine.promotion.rules",
)


@hookimpl
def on_starting(component: Any) -> None:  # noqa: ARG001 Airflow's signature
    """Airflow's long-lived components call it when they start, and so does each task."""
    if "scheduler" not in sys.argv:
        return
    for name in _NEEDED:
        try:
            import_module(name)
        except ImportError as error:
            log.warning("%s cannot be imported ahead of tasks: %s", name, error)
