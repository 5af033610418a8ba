"""Keeps the log of a task's earlier deferrals, which Airflow's triggerer would overwrite.

A wait defers again when its job gets another attempt. Airflow 3.3.2 names a trigger's log file by the task's try and by
the triggerer, and truncates the file when a trigger logs its first line. So the log of the first attempt would be lost.
The triggerer's main process opens the files; this listener makes it append. The files of all tasks are affected.

With remote logging, Airflow appends the file to the remote log when a trigger ends. Nothing is lost then, and lines
would be repeated, so the listener does nothing.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

from airflow.listeners import hookimpl

from mlengine.listeners.starting import is_starting

log = logging.getLogger(__name__)


@hookimpl
def on_starting(component: Any) -> None:
    """Called when one of Airflow's components starts, and in each task."""
    if not is_starting(component, "triggerer"):
        return
    try:
        from airflow.sdk.configuration import conf

        if not conf.getboolean("logging", "remote_logging", fallback=False):
            _append()
    except Exception:
        log.exception("Could not make the triggerer append to logs; a later attempt may overwrite an earlier one's")


def _append() -> None:
    """Make the triggerer append to log files, if it is a version that truncates them."""
    from airflow.jobs import triggerer_job_runner

    factory: Any = triggerer_job_runner.TriggerLoggingFactory
    if 'open("wb")' in inspect.getsource(factory):
        factory.__call__ = _open_to_append


def _open_to_append(factory: Any, processors: Any) -> Any:
    """Replaces ``TriggerLoggingFactory.__call__``: opens the log file at the first call, and returns the logger."""
    import structlog
    from airflow.sdk.log import init_log_file

    if not hasattr(factory, "bound_logger"):
        factory._filehandle = init_log_file(factory.log_path).open("ab")
        logger = structlog.wrap_logger(structlog.BytesLogger(factory._filehandle), processors=processors).bind()
        factory.bound_logger = logger  # Airflow's name; prose: ok
    return factory.bound_logger
