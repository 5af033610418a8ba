"""Where a validation finds the trainer's environment and the datasets on this machine: the local backend's own.

So a model that was trained here is judged in the very environment it was trained in, and one from the cloud in one
built from the same packages.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlengine.core.errors import EnvironmentBuildError
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
    from mlengine.backends.local.settings import state_dir as resolve

    root = resolve(state_dir)

    @contextmanager
    def python() -> Iterator[Path]:
        from mlengine.backends.local.settings import Settings
        from mlengine.runtime.file_lock import Lease
        from mlengine.runtime.venv import build_environment, lock_path

        if not package_uris:
            raise EnvironmentBuildError(
                "it is not known which packages the trainer's environment is made of",
                remedy="pass package_uris=, or validate with validation_level='signature' or 'files'",
            )
        settings = Settings.load()
        built = build_environment(
            package_uris,
            storage,
            root,
            python=settings.python_path,
            env=env,
            seconds=settings.build_timeout_seconds,
            say=log.info,
        )
        lease = Lease.take(lock_path(root, built.digest), wait=settings.build_timeout_seconds, shared=True)
        if lease is None:
            raise EnvironmentBuildError(f"environment {built.digest[:12]} is being rebuilt", remedy="try again")
        with lease:
            yield built.python

    return Place(python, root / "datasets")
