"""Builds the trainer's virtual environment with uv, once for all jobs with the same packages.

``envs/<digest>/`` is keyed by the packages' content, the interpreter and the options. It is built under a lock in its
final location, because virtual environments cannot be moved. ``ready.json`` is written last. A directory without
``ready.json`` is left over from an interrupted build, and the next build removes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlengine.core.errors import EnvironmentBuildError
from mlengine.runtime import bytecode, uv
from mlengine.runtime.constraints import NAME, package_name
from mlengine.runtime.extras import ACCELERATOR_TYPE
from mlengine.runtime.file_lock import FileLock
from mlengine.runtime.json_files import read_json, write_json
from mlengine.runtime.packages import fetch, remove_unused
from mlengine.runtime.recipe import Hints, Recipe
from mlengine.runtime.requires_python import excluded
from mlengine.runtime.uv_env import install_options
from mlengine.storage.client import Storage

# Options of a constraints file that uv accepts only on its command line.
_COMMAND_LINE_ONLY = {"--pre": "--prerelease=allow", "--trusted-host": "--allow-insecure-host"}
_DIGEST = re.compile(r"[0-9a-f]{40}")
_NO_PIP = """\
#!/bin/sh
echo "pip cannot be used here: jobs share this environment. Add the requirement to the trainer's package." >&2
exit 1
"""


@dataclass(frozen=True)
class Environment:
    """A built environment.

    :param python: the path of its interpreter.
    :param lock: the installed packages, as ``name==version``.
    """

    python: Path
    digest: str
    lock: list[str]

    @property
    def root(self) -> Path:
        return self.python.parent.parent


def build_environment(
    package_uris: Sequence[str],
    storage: Storage,
    state_dir: Path,
    *,
    python: str = "",
    env: Mapping[str, str] | None = None,
    seconds: float = 1800.0,
    keep_environments: int = 8,
    say: Callable[[str], None] = lambda _: None,
    hints: Hints | None = None,
) -> Environment:
    """The environment with these packages. It is built if it does not exist.

    A ``constraints.txt`` at the root of an sdist pins the dependencies.

    :param package_uris: sdists or wheels in the bucket, the trainer's first.
    :param python: the interpreter; "" for the one of this process.
    :param env: the job's variables; those for pip and the accelerator are used, as in a container.
    :param keep_environments: the number of unused environments to keep after a build.
    :param say: called with progress messages.
    :param hints: hints for error messages; by default those for environments on this machine.
    :raises EnvironmentBuildError: a package does not accept the interpreter, its constraints cannot be used, or uv
        failed. A failed build leaves nothing behind.
    """
    if not package_uris:
        raise EnvironmentBuildError("no packages to install", hint="give the job file packageUris, or a package")
    packages = [fetch(uri, storage, state_dir) for uri in package_uris]
    accelerator = (env or {}).get(ACCELERATOR_TYPE, "")
    hints = hints or Hints()
    uv_env = uv.environment(env or {})
    recipe = Recipe(packages, python or sys.executable, state_dir, seconds, uv_env, accelerator, hints)
    digest = recipe.digest
    found = find_environment(state_dir, digest)
    if found is not None:
        say(f"environment {digest[:12]} already exists")
        return found
    recipe.check()
    lock_file = lock_path(state_dir, digest)
    lock = FileLock.take(lock_file)
    if lock is None:
        say(f"waiting for another job that builds environment {digest[:12]}")
        deadline = time.monotonic() + seconds
        while lock is None and time.monotonic() < deadline:
            # The process that built it keeps a shared lock while its job runs, so the exclusive one may not be free.
            found = find_environment(state_dir, digest)
            if found is not None:
                return found
            lock = FileLock.take(lock_file, wait=0.5)
    if lock is None:
        raise EnvironmentBuildError(
            f"environment {digest[:12]} is still being built after {seconds:.0f} s",
            hint=f"try again later, or increase the setting {hints.timeout_setting}",
        )
    with lock:
        found = find_environment(state_dir, digest)
        if found is None:
            found = _Builder(recipe, lock, say).build()
            prune(state_dir, keep_environments)
            remove_unused(state_dir)
        return found


def find_environment(state_dir: Path, digest: str) -> Environment | None:
    """The environment, if its build is complete."""
    root = state_dir / "envs" / digest
    ready = read_json(root / "ready.json")
    if ready is None:
        return None
    with contextlib.suppress(OSError):
        os.utime(root / "ready.json")  # time of last use: the least recently used is removed first
    return Environment(root / "bin" / "python", digest, list(ready["lock"]))


def lock_path(state_dir: Path, digest: str) -> Path:
    """The lock file of an environment: the lock is exclusive to build or remove it, and shared to use it."""
    return state_dir / "locks" / f"env-{digest}.lock"


@dataclass(frozen=True)
class _Builder:
    """Builds one environment. The caller and its running child hold the lock."""

    recipe: Recipe
    lock: FileLock
    say: Callable[[str], None]

    def build(self) -> Environment:
        recipe, root = self.recipe, self.recipe.root
        python = root / "bin" / "python"
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        self.say(f"building environment {recipe.digest[:12]} for {', '.join(path.name for path in recipe.packages)}")
        begun = time.monotonic()
        run_uv = partial(
            uv.run,
            env=recipe.env,
            lock=self.lock,
            seconds=recipe.seconds,
            say=self.say,
            timeout_setting=recipe.hints.timeout_setting,
        )
        try:
            run_uv("venv", "--quiet", "--no-project", "--python", recipe.python, str(root))
            options = [*self._constrain(), *install_options(recipe.env)]
            target = f"--python={python}"
            donor = _newest(recipe.state_dir)
            run_uv("pip", "install", target, *options, *recipe.arguments)
            _forbid_pip(root)
            self._warn_of_excluded()
            taken = 0 if donor is None else bytecode.seed(root, donor)
            self.say(f"compiling bytecode; {taken} files reused from another environment")
            names = [package_name(path.name) for path in recipe.packages]
            bytecode.compile_imported(root, names, recipe.seconds, self.lock)
            # Not `pip freeze`, which shows the trainer as a local file, without its version.
            lock = run_uv("pip", "list", "--quiet", "--format=freeze", target, say=None).split()
            write_json(root / "ready.json", {"lock": lock, "packages": [path.name for path in recipe.packages]})
        except BaseException:
            shutil.rmtree(root, ignore_errors=True)
            raise
        seconds = time.monotonic() - begun
        self.say(f"environment {recipe.digest[:12]} built in {seconds:.1f} s, packages: {len(lock)}")
        return Environment(python, recipe.digest, lock)

    def _warn_of_excluded(self) -> None:
        found = excluded(next(self.recipe.root.glob("lib/python*/site-packages")), self.recipe.release)
        if found:
            self.say(
                f"these do not accept Python {self.recipe.release}: {', '.join(found)}. uv installed them; pip, on "
                "Vertex AI, would refuse them or install other versions"
            )

    def _constrain(self) -> list[str]:
        """Write the packages' constraints into the environment, and return uv's options for the file."""
        lines, options = [], []
        for note in self.recipe.constraints.notes:
            self.say(note)
        for line in self.recipe.constraints.text.splitlines():
            name, _, value = line.partition(" ")
            if name in _COMMAND_LINE_ONLY:
                options.append(f"{_COMMAND_LINE_ONLY[name]}={value}" if value else _COMMAND_LINE_ONLY[name])
            else:
                lines.append(f"{line}\n")
        if not lines:
            return options
        path = self.recipe.root / NAME
        path.write_text("".join(lines), encoding="utf-8")
        return [*options, f"--constraint={path}"]


def _forbid_pip(root: Path) -> None:
    """Add a ``pip`` that fails. Without it, a shell would find the user's pip, which changes the user's Python."""
    for python in sorted((root / "bin").glob("python*")):
        script = python.with_name(python.name.replace("python", "pip"))
        if not script.exists():  # the trainer may require pip
            script.write_text(_NO_PIP)
            script.chmod(0o755)


def prune(state_dir: Path, keep: int) -> list[str]:
    """Remove unused environments, except the ``keep`` most recently used, and return the removed ones.

    Directories with other names than those of :func:`build_environment` are not touched.
    """
    folder = state_dir / "envs"
    if not folder.is_dir():
        return []
    own = (path for path in folder.iterdir() if _DIGEST.fullmatch(path.name) and path.is_dir())
    by_age = sorted(own, key=_last_used, reverse=True)
    gone = []
    for root in by_age[keep:]:
        path = lock_path(state_dir, root.name)
        lock = FileLock.take(path)
        if lock is None:
            continue
        with lock:
            # Remove ready.json first, so that a crash does not leave a partial environment that looks complete.
            (root / "ready.json").unlink(missing_ok=True)
            shutil.rmtree(root, ignore_errors=True)
            path.unlink(missing_ok=True)
            gone.append(root.name)
    return gone


def _newest(state_dir: Path) -> Path | None:
    ready = [path for path in (state_dir / "envs").iterdir() if (path / "ready.json").exists()]
    return max(ready, key=_last_used, default=None)


def _last_used(root: Path) -> float:
    try:
        return (root / "ready.json").stat().st_mtime
    except FileNotFoundError:
        return 0.0
