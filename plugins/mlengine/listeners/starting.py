"""Tells listeners which of Airflow's components starts."""

from __future__ import annotations

import sys
from typing import Any


def is_starting(component: Any, command: str) -> bool:
    """Whether ``on_starting`` is called for ``airflow COMMAND``, in the main process of that component.

    Airflow 3.3.2 calls ``on_starting`` in the constructor of ``Job``, before the job has its type. So the command line
    decides. Airflow also calls it in each task, and a task that was forked from the scheduler has the scheduler's
    command line.

    :param component: the argument of ``on_starting``.
    :param command: a subcommand of ``airflow``, such as ``scheduler``.
    """
    return type(component).__module__ == "airflow.jobs.job" and sys.argv[1:2] == [command]
