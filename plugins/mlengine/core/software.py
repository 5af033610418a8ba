"""The software at work in this process, for a job's record."""

from __future__ import annotations

import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def installed() -> bool:
    """Whether mlengine is here as a package, and not only as a folder. Asked once a process: a look at all packages
    takes milliseconds.
    """
    try:
        return bool(version("mlengine"))
    except PackageNotFoundError:
        return False


def software() -> dict[str, str]:
    """``mlengine``, ``python``, and ``airflow`` where it is Airflow that asks."""
    from mlengine import __version__

    found = {"mlengine": __version__, "python": platform.python_version()}
    if "airflow" in sys.modules:
        for name in ("apache-airflow-core", "apache-airflow"):
            try:
                found["airflow"] = version(name)
                break
            except PackageNotFoundError:
                continue
    return found
