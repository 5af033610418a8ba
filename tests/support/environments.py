"""Installs Python packages that tests need and the lock files lack, in separate environments below ``.mlengine``."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

_ROOT = Path(__file__).parents[2] / ".mlengine" / "test" / "environments"


def environment(*requirements: str) -> Path:
    """The interpreter of an environment with exact ``requirements``, built once per clone.

    Skips the test if no package index is reachable.
    """
    target = _ROOT / hashlib.sha256(" ".join([sys.version, *requirements]).encode()).hexdigest()[:12]
    python = target / "bin" / "python"
    _install(target, ["venv", "--quiet", "--no-project", "--python", sys.executable, str(target)], [])
    _install(target / ".installed", ["pip", "install", "--quiet", "--python", str(python), *requirements], ["touch"])
    return python


def packages(*requirements: str) -> Path:
    """A folder for ``PYTHONPATH`` with ``requirements`` but not their dependencies; skips if no index is reachable."""
    target = _ROOT / hashlib.sha256(" ".join([sys.version, "target", *requirements]).encode()).hexdigest()[:12]
    command = ["pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", str(target)]
    _install(target / ".installed", [*command, *requirements], ["touch"])
    return target


def _install(done: Path, command: list[str], touch: list[str]) -> None:
    done.parent.mkdir(parents=True, exist_ok=True)
    with done.with_name(f".{done.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return
        result = subprocess.run([find_uv_bin(), *command], capture_output=True, text=True, timeout=1500, check=False)
        if result.returncode != 0:
            pytest.skip(f"packages of a test cannot be installed: {result.stderr[-300:]}")
        if touch:
            done.touch()
