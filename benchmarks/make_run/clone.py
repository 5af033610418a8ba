"""Fresh clones of checkouts with their own ports and data, but the same download caches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from mlengine.testing.airflow_home import free_port

ROOT = Path(__file__).resolve().parents[2]
UV_CACHE = Path(os.environ.get("UV_CACHE_DIR") or ROOT / ".mlengine" / "cache" / "uv").resolve()
MNIST_CACHE = ROOT / ".mlengine" / "cache" / "mnist"
# Variables of this environment that must not be passed to a clone.
_NOT_INHERITED = (
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE",
    "AIRFLOW_HOME",
    "AIRFLOW_CONFIG",
)


@dataclass(frozen=True)
class Clone:
    """A fresh clone of a checkout.

    :param name: the name of its build in the output.
    """

    name: str
    path: Path

    def make(self, *arguments: str) -> list[str]:
        """The command ``make run`` with arguments, under the Python that runs this."""
        return ["make", "run", f"PYTHON={sys._base_executable}", f"ARGS={' '.join(arguments)}"]  # type: ignore[attr-defined]

    @property
    def env(self) -> dict[str, str]:
        return environment()

    @property
    def trainer_python(self) -> Path:
        """The interpreter of the trainer's environment, once a run has built it."""
        return next((self.path / ".mlengine" / "data" / "local" / "envs").glob("*/bin/python"))

    @property
    def bucket(self) -> Path:
        return self.path / ".mlengine" / "data" / "gcs" / "mlengine"


def environment() -> dict[str, str]:
    """The environment variables of commands in a clone."""
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    return {**kept, "UV_CACHE_DIR": str(UV_CACHE), "PYTHONUNBUFFERED": "1"}


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder on the file system of uv's cache, so that uv can link files instead of copying them."""
    UV_CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / ".mlengine", ignore_cleanup_errors=True) as found:
        yield Path(found)


def clone(name: str, checkout: Path, parent: Path) -> Clone:
    """Clone the last commit of a checkout, without its uncommitted changes."""
    target = parent / name.replace(" ", "-")
    _run(["git", "clone", "--quiet", str(checkout), str(target)])
    commit = _run(["git", "-C", str(target), "log", "-1", "--format=%h %cs"]).strip()
    changed = _run(["git", "-C", str(checkout), "status", "--porcelain", "--untracked-files=no"]).strip()
    print(f"{name}: commit {commit} of {checkout}" + ("; WITHOUT ITS UNCOMMITTED CHANGES" if changed else ""))
    state = target / ".mlengine"
    (state / "cache").mkdir(parents=True)
    (state / "cache" / "mnist").symlink_to(MNIST_CACHE.resolve())
    (state / "data").mkdir()
    ports: Mapping[str, int] = {"gcs": free_port(), "ui": free_port()}
    (state / "data" / "ports.json").write_text(json.dumps(ports))
    return Clone(name, target)


def warm_caches(clones: list[Clone], parent: Path, *, trainer: bool) -> None:
    """Download the packages that the clones install, so that downloads are not measured.

    :param trainer: also download the packages of the trainer's environment.
    """
    from scripts import mnist

    mnist.files(MNIST_CACHE)
    scratch = parent / "warm"
    for found in clones:
        installs = [["sync", "--require-hashes", str(found.path / "requirements.lock")]]
        if trainer:
            project = found.path / "trainer"
            installs.append(["install", "--constraint", str(project / "constraints.txt"), f"{project}[cpu]"])
        for arguments in installs:
            _run([find_uv_bin(), "venv", "--quiet", "--clear", "--python", sys.executable, str(scratch)])
            python = str(scratch / "bin" / "python")
            _run([find_uv_bin(), "pip", arguments[0], "--quiet", "--python", python, *arguments[1:]])
        _run(["git", "-C", str(found.path), "clean", "--quiet", "-fdx", "trainer"])


def _run(command: list[str]) -> str:
    from scripts.bootstrap import uv_environment

    env = {**uv_environment(), **environment()}
    return subprocess.run(command, env=env, check=True, text=True, stdout=subprocess.PIPE).stdout
