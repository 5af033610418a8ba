"""The trainer's environment: its packages from the bucket, installed by uv, once for all jobs that need the same.

``envs/<digest>/`` is keyed by the bytes of the packages, the interpreter and the options. It is built in its final
place, because virtual environments do not like to be moved, under a lock; ``ready.json`` is written last and makes it
an environment. What has no ``ready.json`` is rubbish of a broken build, and the next build removes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlengine.backends.local import environ
from mlengine.backends.local.lease import Lease
from mlengine.backends.local.record import read_json, write_json
from mlengine.core.errors import EnvironmentBuildError
from mlengine.storage import Storage

CONSTRAINTS = "constraints.txt"
_OPTIONS = ("--compile-bytecode",)
_MAX_CONSTRAINTS = 1 << 20
_WORDS = 6000  # characters of uv's output that an error carries


@dataclass(frozen=True)
class Environment:
    """A built environment.

    :param python: its interpreter.
    :param lock: what is installed, as ``name==version``.
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
    seconds: float = 1800.0,
    say: Callable[[str], None] = lambda _: None,
) -> Environment:
    """The environment with these packages in it, built if there is none yet.

    A ``constraints.txt`` at the root of an sdist pins what its packages depend on.

    :param package_uris: sdists or wheels in the bucket, the trainer's first.
    :param python: the interpreter to build for; "" is the one that runs this.
    :param say: told what takes long.
    :raises EnvironmentBuildError: with uv's own words; nothing is kept of a build that failed.
    """
    if not package_uris:
        raise EnvironmentBuildError("no packages to install", remedy="give the job file packageUris, or a package")
    packages = [_fetch(uri, storage, state_dir) for uri in package_uris]
    recipe = _Recipe(packages, python or sys.executable, state_dir, seconds)
    digest = recipe.digest
    found = find_environment(state_dir, digest)
    if found is not None:
        say(f"environment {digest[:12]} is there already")
        return found
    lock_file = lock_path(state_dir, digest)
    lock = Lease.take(lock_file)
    if lock is None:
        say(f"waiting for another job that builds environment {digest[:12]}")
        lock = Lease.take(lock_file, wait=seconds)
    if lock is None:
        raise EnvironmentBuildError(f"environment {digest[:12]} is still being built after {seconds:.0f} s")
    with lock:
        return find_environment(state_dir, digest) or _build(recipe, say)


def find_environment(state_dir: Path, digest: str) -> Environment | None:
    """The environment, if it was built to its end."""
    root = state_dir / "envs" / digest
    ready = read_json(root / "ready.json")
    return None if ready is None else Environment(root / "bin" / "python", digest, list(ready["lock"]))


def lock_path(state_dir: Path, digest: str) -> Path:
    """Locked exclusively by who builds or removes the environment, shared by who uses it."""
    return state_dir / "locks" / f"env-{digest}.lock"


@dataclass(frozen=True)
class _Recipe:
    """All that an environment is made of; equal bytes, interpreter and options have equal digests."""

    packages: list[Path]
    python: str
    state_dir: Path
    seconds: float

    @cached_property
    def digest(self) -> str:
        parts = ["1", os.path.realpath(self.python), _version(self.python), *_OPTIONS]
        for path in self.packages:
            with path.open("rb") as file:
                parts += [path.name, hashlib.file_digest(file, "sha256").hexdigest()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]

    @property
    def root(self) -> Path:
        return self.state_dir / "envs" / self.digest


def _build(recipe: _Recipe, say: Callable[[str], None]) -> Environment:
    root, seconds = recipe.root, recipe.seconds
    python = root / "bin" / "python"
    name = recipe.digest[:12]
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    say(f"building environment {name} for {', '.join(path.name for path in recipe.packages)}")
    begun = time.monotonic()
    try:
        _uv(["venv", "--quiet", "--no-project", "--python", recipe.python, str(root)], seconds)
        install = ["pip", "install", *_OPTIONS, "--python", str(python)]
        for constraints in _constraints(recipe.packages, root):
            install += ["--constraint", str(constraints)]
        say(_uv([*install, *map(str, recipe.packages)], seconds).rstrip())
        # Not `pip freeze`: that shows the trainer as a file of this machine, without its version.
        lock = _uv(["pip", "list", "--format", "freeze", "--python", str(python)], seconds).split()
        write_json(root / "ready.json", {"lock": lock, "packages": [path.name for path in recipe.packages]})
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    say(f"environment {name} built in {time.monotonic() - begun:.1f} s, {len(lock)} packages")
    return Environment(python, recipe.digest, lock)


def _fetch(uri: str, storage: Storage, state_dir: Path) -> Path:
    """The package on this machine, downloaded once for each generation of the object."""
    stat = storage.stat(uri)
    if stat is None:
        raise EnvironmentBuildError(
            f"no package at {uri}", remedy="package the trainer again, or correct packageUris in the job file"
        )
    tag = hashlib.sha256(f"{uri} {stat.generation} {stat.crc32c}".encode()).hexdigest()[:24]
    target = state_dir / "packages" / tag / uri.rsplit("/", 1)[1]
    if not target.exists():
        storage.download(uri, target)
    return target


def _version(python: str) -> str:
    if python == sys.executable:
        return sys.version
    try:
        return subprocess.run(
            [python, "-c", "import sys; print(sys.version)"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise EnvironmentBuildError(
            f"the interpreter {python} does not run: {error}", remedy="correct the setting MLENGINE_LOCAL_PYTHON"
        ) from error


def _constraints(packages: Sequence[Path], root: Path) -> list[Path]:
    """The ``constraints.txt`` of each sdist, written into the environment."""
    written = []
    for number, path in enumerate(packages):
        content = read_constraints(path)
        if content is not None:
            target = root / f"constraints-{number}.txt"
            target.write_bytes(content)
            written.append(target)
    return written


def read_constraints(package: Path) -> bytes | None:
    """The content of ``<name>-<version>/constraints.txt`` in an sdist; ``None`` if it has none, or is a wheel.

    :raises EnvironmentBuildError: if the archive is not readable.
    """
    try:
        if package.name.endswith(".zip"):
            with zipfile.ZipFile(package) as archive:
                names = [name for name in archive.namelist() if _is_constraints(name)]
                return archive.read(names[0])[:_MAX_CONSTRAINTS] if names else None
        if package.name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar")):
            with tarfile.open(package) as tar:
                for member in tar:
                    if member.isfile() and _is_constraints(member.name):
                        file = tar.extractfile(member)
                        return None if file is None else file.read(_MAX_CONSTRAINTS)
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise EnvironmentBuildError(
            f"{package.name} is not a readable archive: {error}", remedy="package the trainer again"
        ) from error
    return None


def _is_constraints(name: str) -> bool:
    parts = name.removeprefix("./").split("/")
    return len(parts) == 2 and parts[1] == CONSTRAINTS


def _uv(arguments: Sequence[str], seconds: float) -> str:
    """Run uv, away from any project whose settings it would take for its own. Returns all it said."""
    from uv import find_uv_bin

    env = environ.for_launcher(os.environ) | {"NO_COLOR": "1"}
    command = [find_uv_bin(), "--no-progress", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd="/",
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentBuildError(f"uv did not end within {seconds:.0f} s: uv {' '.join(arguments)}") from error
    if done.returncode:
        raise EnvironmentBuildError(
            f"uv {' '.join(arguments[:2])} ended with code {done.returncode}:\n{done.stdout[-_WORDS:].strip()}",
            remedy="correct the trainer's dependencies or constraints.txt; the next submission builds anew",
        )
    return done.stdout
