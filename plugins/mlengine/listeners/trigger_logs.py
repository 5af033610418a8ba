"""Keeps the logs of deferred tasks that Airflow's triggerer would lose. The logs of all tasks are affected.

The triggerer's main process writes the logs, so this listener changes how it opens and closes them (Airflow 3.3.2):

* Without remote logging: a wait defers again when its job gets another attempt. Airflow names a trigger's log file by
  the task's try and by the triggerer, and truncates the file when a trigger logs its first line. So the log of the
  first attempt would be lost. The listener makes it append.
* With remote logging: Airflow appends the file to the remote log when a trigger ends. It uploads nothing when a
  triggerer stops while its triggers run. The next triggerer writes another file, so the lines until then would exist
  only on the disk of the first one. The listener uploads them.
"""

from __future__ import annotations

import inspect
import logging
import os
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from airflow.listeners import hookimpl

from mlengine.listeners.starting import is_starting

log = logging.getLogger(__name__)

# The longest time for all uploads when a triggerer stops. Airflow's Helm chart gives the triggerer
# 60 s, of which its triggers may have used 20.
UPLOAD_SECONDS = 30.0
_UPLOADS_AT_ONCE = 8
# The open logs of this triggerer's triggers, by their id(), as they are not hashable. Empty without remote logging.
_open: dict[int, Any] = {}


@hookimpl
def on_starting(component: Any) -> None:
    """Called when one of Airflow's components starts, and in each task."""
    if not is_starting(component, "triggerer"):
        return
    try:
        from airflow.sdk.configuration import conf

        if conf.getboolean("logging", "remote_logging", fallback=False):
            _track()
        else:
            _append()
    except Exception:
        log.exception("Could not change how the triggerer writes logs; some lines of deferred tasks may be lost")


@hookimpl
def before_stopping() -> None:
    """Called when one of Airflow's components stops, in an orderly way, and in each task."""
    factories = list(_open.values())
    _open.clear()
    if not factories:
        return
    # The connection of the remote log may be in the database, which is read only in this context. The triggerer has
    # just left it.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    pool = ThreadPoolExecutor(_UPLOADS_AT_ONCE, thread_name_prefix="mlengine-trigger-logs")
    uploads = [pool.submit(_upload, factory) for factory in factories]
    late = len(wait(uploads, UPLOAD_SECONDS).not_done)
    pool.shutdown(wait=False, cancel_futures=True)
    if late:
        log.error("%d logs of deferred tasks were not uploaded within %.0f s; they lack lines", late, UPLOAD_SECONDS)


def _upload(factory: Any) -> None:
    try:
        factory.upload_to_remote()
    except Exception:
        log.exception("Could not upload the log of a deferred task: %s", factory.log_path)


def _track() -> None:
    """Make the triggerer record which logs are open."""
    from airflow.jobs import triggerer_job_runner

    factory: Any = triggerer_job_runner.TriggerLoggingFactory
    open_log, close_log = factory.__call__, factory.close

    def opened(self: Any, processors: Any) -> Any:
        _open[id(self)] = self
        return open_log(self, processors)

    def closed(self: Any) -> None:
        _open.pop(id(self), None)
        close_log(self)

    factory.__call__, factory.close = opened, closed


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
