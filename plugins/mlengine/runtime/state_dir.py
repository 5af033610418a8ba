"""The directory of local jobs, training environments and downloaded datasets."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from mlengine import settings


def state_dir(given: str | Path | None = None) -> Path:
    """The argument, or the setting ``local_state_dir``, or ``mlengine/`` in ``AIRFLOW_HOME``, or
    ``~/.local/state/mlengine`` where that variable is not set.
    """
    named = settings.get("local_state_dir", given)
    if named:
        return Path(named).expanduser().absolute()
    if os.environ.get("AIRFLOW_HOME"):
        return Path(os.environ["AIRFLOW_HOME"]).expanduser().absolute() / "mlengine"
    return Path.home() / ".local" / "state" / "mlengine"


def disk_is_full(error: OSError) -> bool:
    """Whether a file could not be written because the disk, or the user's quota on it, is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}
