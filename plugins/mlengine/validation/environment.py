"""Where a validation finds the trainer's environment and the datasets on this machine: where local jobs have theirs.

So a model that was trained here is judged in the very environment it was trained in, and one from the cloud in one
built from the same packages.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlengine import settings
from mlengine.core.errors import EnvironmentBuildError
from mlengine.runtime.state_dir import state_dir as resolve_state_dir
from mlengine.storage.client import Storage
from mlengine.validation.validation import Place

log = logging.getLogger(__name__)


def local_place(
    storage: Storage,
    package_uris: Sequence[str],
    state_dir: str | Path | None = None,
    *,
    env: Mapping[str, str] | None = None,
) -> Place:
    """The environment of ``package_uris``, built when it is asked for, and not removed while it is used.

    :param env: the job's variables; those for pip say where its packages come from.
    """
    root = resolve_state_dir(state_dir)

    @contextmanager
    def python() -> Iterator[Path]:
        from mlengine.runtime.file_lock import FileLock
        from mlengine.runtime.venv import build_environment, lock_path

        if not package_uris:
            raise EnvironmentBuildError(
                "it is not known which packages the trainer's environment is made of",
                hint="pass package_uris=, or validate with validation_level='signature' or 'files'",
            )
        seconds = settings.get_float("local_build_timeout_seconds")
        interpreter = settings.get("local_python_path")
        built = build_environment(
            package_uris,
            storage,
            root,
            python=interpreter,
            env=env,
            seconds=seconds,
            say=log.info,
        )
        lock = FileLock.take(lock_path(root, built.digest), wait=seconds, shared=True)
        if lock is None:
            raise EnvironmentBuildError(f"environment {built.digest[:12]} is being rebuilt", hint="try again")
        with lock:
            yield built.python

    return Place(python, root / "datasets")
