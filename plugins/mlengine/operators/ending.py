"""No job outlives its task: what every way out of a task that holds a job has in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTerminated,
    TaskDeferred,
)

from mlengine.core.errors import MlengineError

log = logging.getLogger(__name__)

# After these Airflow does not try the task again, however many tries it has left.
_FINAL = (AirflowFailException, AirflowSensorTimeout, AirflowSkipException, AirflowTaskTerminated)


@contextmanager
def job_ends_with_task(context: Any, cancel: Callable[[str], None]) -> Iterator[None]:
    """If the body fails and the task will not be tried again, ``cancel`` the job; it is told why.

    A deferral and a reschedule are no failures, and a task that has tries left finds its job again. A failure to cancel
    is logged and does not hide the first one; ``mlengine reap`` ends what is left.
    """
    try:
        yield
    except (TaskDeferred, AirflowRescheduleException):
        raise
    except BaseException as error:
        ti = context["ti"]
        own = isinstance(error, MlengineError) and not error.retryable
        if own or isinstance(error, _FINAL) or ti.try_number > (ti.max_tries or 0):
            try:
                cancel(f"the task ended: {type(error).__name__}")
            except Exception:
                log.exception("the job could not be cancelled; `mlengine reap` will find it")
        raise
