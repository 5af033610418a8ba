"""Builds the trainer's environment on one node: ``python -m mlengine.backends.ray.prepare RECORD NODE_DIR RESULT``.

The environment variables of :mod:`mlengine.runtime.extras`, if they are set, choose the packages' extra.

This module also removes what earlier jobs have left on the node: the files of jobs whose driver was killed or that lost
the node, lock files, and data of the trainers that is no longer used.

Messages go to standard error, the result to a JSON file: the environment's digest and packages, or an error.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from mlengine.backends.local.replica_env import own_variables
from mlengine.backends.local.stage import is_temporary, say
from mlengine.backends.ray.record import Stored
from mlengine.backends.ray.replica_host import LOCK_PREFIX, job_lock
from mlengine.core.errors import MlengineError
from mlengine.runtime import data_cache
from mlengine.runtime.extras import ACCELERATOR_COUNT, ACCELERATOR_TYPE
from mlengine.runtime.file_lock import FileLock
from mlengine.runtime.json_files import write_json
from mlengine.runtime.recipe import Hints
from mlengine.runtime.venv import build_environment
from mlengine.storage.client import Storage

HINTS = Hints("ray_build_timeout_seconds", "use a Ray cluster whose nodes have a Python that it accepts")


def prepare(stored: Stored, storage: Storage, node_dir: Path) -> dict[str, Any]:
    """Build the environment on this node if it does not exist. Return its digest, packages and Python version.

    Before that, remove data of the trainers that is no longer used.
    """
    data_cache.remove_unused(node_dir, stored.settings.keep_data_days, say)
    accelerator = {name: os.environ[name] for name in (ACCELERATOR_TYPE, ACCELERATOR_COUNT) if name in os.environ}
    environment = build_environment(
        stored.submission.spec.package_uris,
        storage,
        node_dir,
        env={**accelerator, **own_variables(stored.submission)},
        seconds=stored.settings.build_timeout_seconds,
        keep_environments=stored.settings.keep_environments,
        say=say,
        hints=HINTS,
    )
    python = ".".join(map(str, sys.version_info[:2]))
    return {"digest": environment.digest, "packages": environment.lock, "python": python}


def prune(node_dir: Path) -> list[str]:
    """Remove the files of jobs that have no actor and no process on this node, and their lock files.

    A lock file of a job (:func:`~mlengine.backends.ray.replica_host.job_lock`) or of a replica that no process holds is
    not needed: the next process that takes the lock creates the file again.

    :return: the names of the jobs that had files.
    """
    gone = []
    for folder in sorted((node_dir / "ray").glob("*")):
        lock = FileLock.take(job_lock(node_dir, folder.name))
        if lock is not None:
            with lock:
                shutil.rmtree(folder, ignore_errors=True)
                gone.append(folder.name)
    for path in (node_dir / "locks").glob(f"{LOCK_PREFIX}*.lock"):
        lock = FileLock.take(path)
        if lock is not None:
            with lock:
                path.unlink(missing_ok=True)
    return gone


def main(argv: list[str]) -> int:
    for name in prune(Path(argv[1])):
        say(f"removed the files of {name}, which has ended")
    try:
        storage = Storage()
        result = prepare(Stored.from_bytes(storage.read(argv[0])), storage, Path(argv[1]))
    except MlengineError as error:
        say(str(error))
        result = {"error": str(error), "retryable": is_temporary(error)}
    except ImportError as error:
        message = f"{error}; each node of the Ray cluster needs the packages google-cloud-storage, uv and packaging"
        say(message)
        result = {"error": message, "retryable": True}
    write_json(Path(argv[2]), result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
