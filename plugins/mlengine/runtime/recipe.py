"""The inputs of an environment: packages, their constraints, an interpreter, and uv's settings."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlengine.core.errors import EnvironmentBuildError
from mlengine.runtime.constraint_lines import ConstraintsError
from mlengine.runtime.constraints import Constraints, of_packages
from mlengine.runtime.dependencies import path_with_extra
from mlengine.runtime.extras import extra_for
from mlengine.runtime.requires_python import UnreadableArchiveError, accepts, required
from mlengine.runtime.uv_env import install_options

# Settings of uv that change which versions are installed. The values of the first ones are names of files.
_RESOLUTION_FILES = ("UV_CONSTRAINT", "UV_EXCLUDE", "UV_OVERRIDE")
_RESOLUTION = (*_RESOLUTION_FILES, "UV_EXCLUDE_NEWER", "UV_PRERELEASE", "UV_RESOLUTION")


@dataclass(frozen=True)
class Hints:
    """The hints in error messages about failed builds. The defaults are those for environments on this machine.

    :param timeout_setting: the setting that limits the time of the build.
    :param interpreter: a hint that says how to get another interpreter.
    """

    timeout_setting: str = "local_build_timeout_seconds"
    interpreter: str = (
        "choose an interpreter that it accepts, by the setting local_python_path or by "
        "mlengine jobs train --python-version"
    )


@dataclass(frozen=True)
class Recipe:
    """The inputs of one environment. Equal recipes have equal digests, and share an environment.

    :param python: the interpreter for which to build.
    :param seconds: the time limit of each step of the build.
    :param env: uv's environment variables.
    :param accelerator: the name of the accelerator for which to install; "" for none.
    """

    packages: Sequence[Path]
    python: str
    state_dir: Path
    seconds: float
    env: Mapping[str, str]
    accelerator: str = ""
    hints: Hints = Hints()

    @cached_property
    def arguments(self) -> list[str]:
        """The packages as arguments of uv, each with the extra ``cpu``, ``gpu`` or ``tpu`` if the package declares it.

        :raises EnvironmentBuildError: a package is not readable.
        """
        return [_with_extra(path, extra_for(self.accelerator)) for path in self.packages]

    @cached_property
    def digest(self) -> str:
        """The digest of the inputs, 40 hex digits."""
        parts = ["2", os.path.realpath(self.python), self.version]
        parts += [f"{name}={self.env[name]}" for name in _RESOLUTION if name in self.env]
        parts += install_options(self.env)
        parts += [Path(one).name for one in self.arguments if one.endswith("]")]
        files = [Path(path) for name in _RESOLUTION_FILES for path in self.env.get(name, "").split()]
        for path in (*(path for path in files if path.is_file()), *self.packages):
            with path.open("rb") as file:
                parts += [path.name, hashlib.file_digest(file, "sha256").hexdigest()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]

    @property
    def root(self) -> Path:
        """The directory of the environment."""
        return self.state_dir / "envs" / self.digest

    @cached_property
    def version(self) -> str:
        """The ``sys.version`` of the interpreter.

        :raises EnvironmentBuildError: the interpreter does not run.
        """
        if self.python == sys.executable:
            return sys.version
        command = [self.python, "-c", "import sys; print(sys.version)"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
        except (OSError, subprocess.SubprocessError) as error:
            raise EnvironmentBuildError(
                f"the interpreter {self.python} does not run: {error}",
                hint="correct the setting local_python_path (AIRFLOW__MLENGINE__LOCAL_PYTHON_PATH)",
            ) from error

    @property
    def release(self) -> str:
        """The version number of the interpreter, such as ``3.11.7``."""
        return self.version.split()[0].rstrip("+")

    @cached_property
    def constraints(self) -> Constraints:
        """The merged ``constraints.txt`` of the packages.

        :raises EnvironmentBuildError: a line cannot be used; the message names file and line.
        """
        try:
            return of_packages(self.packages)
        except ConstraintsError as error:
            raise EnvironmentBuildError(str(error), hint=error.hint) from error

    def check(self) -> None:
        """Check the inputs before anything is built.

        :raises EnvironmentBuildError: a package is not readable, does not accept the interpreter, or has constraints
            that cannot be used.
        """
        for path in self.packages:
            wanted = _required(path)
            if wanted and not accepts(wanted, self.release):
                raise EnvironmentBuildError(
                    f"{path.name} requires Python {wanted}, but the environment would have {self.release} "
                    f"({self.python})",
                    hint=f"{self.hints.interpreter}; or change requires-python",
                )
        _ = self.constraints


def _required(package: Path) -> str | None:
    with _readable(package), package.open("rb") as file:
        return required(package.name, file)


def _with_extra(package: Path, extra: str) -> str:
    with _readable(package):
        return path_with_extra(package, extra)


@contextmanager
def _readable(package: Path) -> Iterator[None]:
    """Convert errors while a package is read.

    :raises EnvironmentBuildError: the package could not be read.
    """
    try:
        yield
    except (UnreadableArchiveError, OSError) as error:
        raise EnvironmentBuildError(
            f"{package.name} is not a readable archive: {error}", hint="package the trainer again"
        ) from error
