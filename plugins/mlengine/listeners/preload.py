"""Imports the modules that every stage needs once, in the scheduler, instead of in every task.

``LocalExecutor`` forks its tasks from the scheduler, so they inherit its imports. With other executors, which start
their tasks elsewhere, this has no effect. The listener only imports: it creates no client and opens no connection.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from airflow.listeners import hookimpl

from mlengine.listeners.starting import is_starting

log = logging.getLogger(__name__)

_NEEDED = (
    "google.cloud.storage",
    "google.auth",
    "google_crc32c",
    "_strptime",
    "jinja2.ext",
    "netrc",
    "airflow.sdk.bases.hook",
    "airflow.sdk.definitions.decorators",
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
def on_starting(component: Any) -> None:
    """Called when one of Airflow's components starts, and in each task."""
    if not is_starting(component, "scheduler"):
        return
    for name in _NEEDED:
        try:
            import_module(name)
        except ImportError as error:
            log.warning("Could not preload %s: %s", name, error)
