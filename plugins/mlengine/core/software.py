"""The versions of the software in this process, for a job's record."""

from __future__ import annotations

import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def installed() -> bool:
    """Whether mlengine is installed as a package. Cached: reading all package metadata takes milliseconds."""
    try:
        return bool(version("mlengine"))
    except PackageNotFoundError:
        return False


def software() -> dict[str, str]:
    """The versions of ``mlengine`` and ``python``, and of ``airflow`` in Airflow's processes."""
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
