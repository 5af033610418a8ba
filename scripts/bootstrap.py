"""Create the environment of this clone from the lock files, using only Python: ``bootstrap.py [run|dev]``.

1. ``.mlengine/tools``: uv, in the version and with the hashes that ``requirements.lock`` names.
2. ``.venv``: ``requirements.lock`` (run) or ``requirements-dev.lock`` (dev, which contains it), and this project as an
   editable install, built offline.

A stamp in ``.venv`` records a digest of the lock file and the project's metadata, so that a second call only compares.
Nothing is written outside of the clone. HOME may be empty or unset, and a uv on the PATH is not used. The syntax is
that of Python 3.7, so that a Python that is too old for the project can print an error that says so.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".mlengine"
TOOLS = STATE / "tools"
VENV = ROOT / ".venv"
STAMP = VENV / ".mlengine-stamp"
LOCKS = {"run": ROOT / "requirements.lock", "dev": ROOT / "requirements-dev.lock"}
OLDEST = (3, 11)
NEWEST = (3, 13)  # TensorFlow has no wheels for a later one
FORMAT = 1  # increase it when environments created by an older version of this file must be recreated


class SetupError(Exception):
    """The environment cannot be created. The message says what is missing and what to do."""


def main(arguments: list[str]) -> int:
    kind = arguments[0] if arguments else "run"
    if kind not in LOCKS:
        sys.stderr.write(f"usage: bootstrap.py [{'|'.join(LOCKS)}]\n")
        return 2
    try:
        ensure(kind)
    except SetupError as error:
        sys.stderr.write(f"bootstrap: {error}\n")
        return 1
    except OSError as error:
        hint = "free disk space" if error.errno == errno.ENOSPC else f"correct the owner and the permissions in {ROOT}"
        sys.stderr.write(f"bootstrap: {error}\n  What to do: {hint}; then start it again\n")
        return 1
    return 0


def ensure(kind: str) -> None:
    """Create or update ``.venv`` for ``kind``; do nothing if it is up to date.

    :raises SetupError: this Python is too old, or there is a ``.venv`` that this script did not create, whose packages
        would be removed.
    """
    if sys.version_info[:2] < OLDEST:
        _start_again(kind)
        return
    if _current(kind):
        return
    if VENV.exists() and not STAMP.exists():
        raise SetupError(
            f"{VENV} was not created by make; the packages installed in it would be removed.\n"
            "  What to do: move it away, or delete it if a first set-up was interrupted"
        )
    started = time.monotonic()
    python = find_python()
    say(f"Setting up {VENV.name} (once; {LOCKS[kind].name}, Python {_version_of(python)}) …")
    uv = ensure_uv(python)
    if not _usable(VENV / "bin" / "python"):
        _run([uv, "venv", "--quiet", "--clear", "--python", python, str(VENV)])
    # From here on, the directory is marked as ours but incomplete.
    STAMP.write_text("{}\n", encoding="utf-8")
    inside = ["--python", str(VENV / "bin" / "python")]
    # No --compile-bytecode: less than a tenth of the modules are ever imported, and Python compiles those itself.
    _run([uv, "pip", "sync", *inside, "--require-hashes", str(LOCKS[kind])])
    # The lock file includes the build backend, so nothing is downloaded here.
    _run([uv, "pip", "install", *inside, "--quiet", "--offline", "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    STAMP.write_text(json.dumps({"kind": kind, "digest": inputs_digest(kind)}) + "\n", encoding="utf-8")
    say(f"Set up in {time.monotonic() - started:.0f} s.")


def _start_again(kind: str) -> None:
    """Run this script with a Python that is new enough: this one has no ``tomllib``, and uv is not installed yet.

    :raises SetupError: there is no such Python on the PATH, or the script failed.
    """
    command = [find_python(), str(Path(__file__).resolve()), kind]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise SetupError(f"this failed with code {code}: {' '.join(command)}\n  What to do: see the messages above")


def inputs_digest(kind: str) -> str:
    """A digest of everything that determines the environment's content. The path counts too: a venv cannot be moved."""
    import tomllib  # new in Python 3.11; see ensure()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    # The settings of linters and tests, in the same file, do not change the environment.
    installed = [project.get("build-system"), project.get("project"), project.get("tool", {}).get("hatch")]
    digest = hashlib.sha256(f"{FORMAT} {ROOT} {json.dumps(installed, sort_keys=True)}".encode())
    digest.update(LOCKS[kind].read_bytes())
    return digest.hexdigest()


def _current(kind: str) -> bool:
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
        there = str(stamp["kind"])
        # The development environment contains the one for running.
        return there in {kind, "dev"} and stamp["digest"] == inputs_digest(there) and (VENV / "bin" / "python").exists()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def find_python() -> str:
    """A Python for which all packages have wheels: this one, or another on the PATH.

    :raises SetupError: there is none.
    """
    if _fits(sys.version_info[:2]):
        return sys.executable
    for minor in (12, 13, 11):
        found = shutil.which(f"python3.{minor}")
        if found and _usable(Path(found)):
            return found
    raise SetupError(
        f"this is Python {platform.python_version()}; {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]} is needed, "
        f"and none is on the PATH.\n  What to do: install python3.12 (Debian and Ubuntu: apt-get install python3 "
        f"python3-venv), or give its path: make PYTHON=/path/to/python3.12 …"
    )


def _fits(version: tuple[int, ...]) -> bool:
    return OLDEST <= version <= NEWEST


def _version_of(python: str) -> str:
    script = "import platform; print(platform.python_version())"
    return subprocess.run([python, "-c", script], capture_output=True, text=True, check=False).stdout.strip()


def _usable(python: Path) -> bool:
    if not python.exists():
        return False
    version = re.match(r"(\d+)\.(\d+)", _version_of(str(python)))
    return version is not None and _fits((int(version[1]), int(version[2])))


def ensure_uv(python: str) -> str:
    """Install the uv that the lock file names into ``.mlengine/tools``. Returns its path.

    Uses the installed pip or, without one, the pip of the standard library's venv, which takes four times as long.

    :raises SetupError: neither is available, or pip fails.
    """
    version, requirement = uv_requirement(LOCKS["run"].read_text(encoding="utf-8"))
    home = TOOLS / f"uv-{version}"
    for candidate in (home / "bin" / "uv", home / "lib" / "bin" / "uv"):
        if candidate.exists():
            return str(candidate)
    # An interrupted pip leaves a partial installation, so the folder gets its final name only when it is complete.
    part = TOOLS / f"{home.name}.part"
    for folder in (home, part):
        shutil.rmtree(folder, ignore_errors=True)
    part.mkdir(parents=True)
    pinned = part / "uv.txt"
    pinned.write_text(requirement + "\n", encoding="utf-8")
    say(f"Installing uv {version} into {home.relative_to(ROOT)} …")
    installed = _install_uv(python, part, pinned)
    part.rename(home)
    return str(home / installed)


def _install_uv(python: str, folder: Path, pinned: Path) -> str:
    """Install uv into the folder. Returns its path there."""
    install = ["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(pinned)]
    if _has(python, "pip"):
        _run([python, "-m", "pip", *install, "--no-compile", "--target", str(folder / "lib")])
        return "lib/bin/uv"
    if _has(python, "ensurepip"):
        _run([python, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "python"), "-m", "pip", *install])
        return "bin/uv"
    shutil.rmtree(folder, ignore_errors=True)
    raise SetupError(
        f"{python} has neither ensurepip nor pip, so nothing can be installed.\n"
        "  What to do: apt-get install python3-venv (Debian and Ubuntu), or the package of your system that has "
        "Python's venv module"
    )


def uv_requirement(lock: str) -> tuple[str, str]:
    """The version of uv in a lock file, and its requirement with the hashes."""
    match = re.search(r"^uv==(\S+) \\\n(?:    --hash=\S+(?: \\)?\n?)+", lock, re.MULTILINE)
    if match is None:
        raise SetupError("requirements.lock does not contain uv.\n  What to do: run make lock, or restore the file")
    return match[1], match[0].strip()


def _has(python: str, module: str) -> bool:
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def uv_environment() -> dict[str, str]:
    """The environment variables for uv, for this script and others."""
    if str(ROOT / "plugins") not in sys.path:  # the package is not installed yet
        sys.path.append(str(ROOT / "plugins"))
    from mlengine.runtime import uv_env

    environment = {**uv_env.uv_environment(os.environ), "UV_PYTHON_DOWNLOADS": "never"}
    environment.setdefault("UV_CACHE_DIR", str(STATE / "cache" / "uv"))
    return environment


def _run(command: list[str]) -> None:
    environment = {**uv_environment(), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    # Overrides the user's pip settings that conflict with --target, and a warning for root that does not apply here.
    environment |= {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_ROOT_USER_ACTION": "ignore"}
    # With these, uv would install into the active environment.
    for name in ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT_ENVIRONMENT"):
        environment.pop(name, None)
    with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or ():
            # uv prints each of some 300 packages twice; print only downloads and errors.
            if not line.startswith((" + ", " - ", " ~ ", " Downloaded")):
                sys.stderr.write(line)
    code = process.returncode
    if code:
        raise SetupError(f"this failed with code {code}: {' '.join(command)}\n  What to do: see the messages above")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
