"""The trainer's environment and the dataset cache on this machine.

Local jobs use the same ones. A model that was trained here is validated in the environment in which it was trained; a
model that was trained elsewhere is validated in an environment built from the same packages.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlengine import settings
from mlengine.core.errors import EnvironmentBuildError
from mlengine.runtime.state_dir import state_dir as resolve_state_dir
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ValidationEnvironment:
    """The trainer's environment and the dataset cache on this machine.

    :param python: builds the trainer's environment and yields its interpreter. It is entered only if the model runs.
    :param datasets: the folder in which downloaded dataset versions are cached.
    """

    python: Callable[[], AbstractContextManager[Path]]
    datasets: Path


def local_environment(
    storage: Storage,
    package_uris: Sequence[str],
    state_dir: str | Path | None = None,
    *,
    env: Mapping[str, str] | None = None,
) -> ValidationEnvironment:
    """The environment of ``package_uris``. It is built on first use and locked while it is in use.

    :param package_uris: the trainer's packages.
    :param state_dir: the state directory of the local backend; by default the setting ``local_state_dir``.
    :param env: the job's environment variables. Those for pip select the package index.
    """
    root = resolve_state_dir(state_dir)

    @contextmanager
    def python() -> Iterator[Path]:
        from mlengine.runtime.file_lock import FileLock
        from mlengine.runtime.venv import build_environment, lock_path

        if not package_uris:
            raise EnvironmentBuildError(
                "the packages of the trainer's environment are unknown",
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
            raise EnvironmentBuildError(
                f"environment {built.digest[:12]} is still being rebuilt", hint="try again later"
            )
        with lock:
            yield built.python

    return ValidationEnvironment(python, root / "datasets")
