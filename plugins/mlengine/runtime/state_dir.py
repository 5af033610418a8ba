"""The directory of local jobs, training environments and downloaded datasets."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from mlengine import settings

_LEAST_BYTES = 1 << 20


def state_dir(given: str | Path | None = None) -> Path:
    """The state directory: the argument, else the setting ``local_state_dir``, else ``mlengine/`` in ``AIRFLOW_HOME``.

    If that variable is not set, the directory is ``~/.local/state/mlengine``.
    """
    named = settings.get("local_state_dir", given)
    if named:
        return Path(named).expanduser().absolute()
    if os.environ.get("AIRFLOW_HOME"):
        return Path(os.environ["AIRFLOW_HOME"]).expanduser().absolute() / "mlengine"
    return Path.home() / ".local" / "state" / "mlengine"


def is_full(folder: Path) -> bool:
    """Whether the disk of a directory has no space left, apart from what the system reserves."""
    try:
        return shutil.disk_usage(folder).free < _LEAST_BYTES
    except OSError:
        return False


def disk_is_full(error: OSError) -> bool:
    """Whether a file could not be written because the disk, or the user's quota on it, is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}
