"""Runs ``uv build`` without the worker's secrets: an sdist from a source directory, or a wheel from an sdist.

The result is checked in :mod:`mlengine.packaging.project_build`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlengine.core.errors import PackageError
from mlengine.runtime.uv_env import index_options, uv_environment

BUILD_SECONDS = 900

# Variables that a build inherits: none of Airflow's, and no credentials except those of the package registry.
_ENV = frozenset(
    {"PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"}
    | {"NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {"CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NETRC"}
)
_ENV_PREFIXES = ("LC_", "UV_", "PIP_")
# Variables from which a build takes its version instead of from git.
_VERSION_ENV = re.compile(
    r"(SETUPTOOLS_SCM|VCS_VERSIONING|HATCH_VCS|PBR|UV_DYNAMIC_VERSIONING|POETRY_DYNAMIC_VERSIONING|PDM_BUILD_SCM)_\w+"
)
_FIRST_ZIP_DAY = "315532800"  # 1980-01-01: the earliest date in a zip file
_HOOK = re.compile(r"Call to `[^`]*\.([a-z_]+)` failed")


@dataclass(frozen=True)
class Build:
    """One run of ``uv build``.

    :param archive: the built file; ``None`` if the build failed.
    :param output: the output of uv, with the user's paths instead of the copies', and without passwords in URLs.
    """

    kind: Literal["sdist", "wheel"]
    code: int
    archive: Path | None
    output: str

    @property
    def failed_hook(self) -> str:
        """The build backend's hook that failed, such as ``build_wheel``; empty if uv does not name it."""
        found = _HOOK.search(self.output)
        return found[1] if found else ""


def build(kind: Literal["sdist", "wheel"], source: Path, out: Path, shown: Mapping[Path, Path | str]) -> Build:
    """Build ``source``, a copy of the user's directory or an sdist, into ``out``.

    :param shown: the paths of copies, each with the user's path to show instead.
    :raises PackageError: the build took longer than :data:`BUILD_SECONDS`, or uv is not installed.
    """
    command = [_uv(), "build", f"--{kind}", "--out-dir", str(out), "--python", sys.executable, "--color", "never"]
    env = _environment(source, out.parent)
    command += ["--no-progress", *index_options(env), str(source)]
    try:
        code, output = _run(command, source if source.is_dir() else source.parent, env)
    except subprocess.TimeoutExpired as error:
        raise PackageError(
            f"{_show(str(source), shown)} was not built within {BUILD_SECONDS} s",
            hint=f"see which step is slow: uv build --{kind} {_show(str(source), shown)}",
        ) from error
    built = sorted(out.glob("*.tar.gz" if kind == "sdist" else "*.whl"))
    return Build(kind, code, built[0] if built and code == 0 else None, _show(output, shown))


def version_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that give a build its version, such as ``SETUPTOOLS_SCM_PRETEND_VERSION``."""
    return {key: environ[key] for key in sorted(environ) if _VERSION_ENV.fullmatch(key)}


def _run(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """Run a command, and return its exit code and output.

    The command's child processes end with it, even if this task is killed.
    """
    process = subprocess.Popen(
        command,
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=BUILD_SECONDS)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, output.decode(errors="replace")


def _environment(source: Path, work: Path) -> dict[str, str]:
    found = {
        key: value for key, value in os.environ.items() if key.upper() in _ENV or key.upper().startswith(_ENV_PREFIXES)
    }
    found |= version_environment(os.environ)
    found |= {"SOURCE_DATE_EPOCH": _FIRST_ZIP_DAY, "UV_PYTHON_DOWNLOADS": "never", "PYTHONDONTWRITEBYTECODE": "1"}
    # The temporary directory or uv's cache may be inside an unrelated git repository.
    found |= {"GIT_CEILING_DIRECTORIES": str(work), "GIT_TERMINAL_PROMPT": "0"}
    if source.is_file():
        found["GIT_DIR"] = os.devnull  # where an sdist is installed, there is no repository either
    return uv_environment(found)


def _show(output: str, shown: Mapping[Path, Path | str]) -> str:
    for copy, original in sorted(shown.items(), key=lambda item: -len(str(item[0]))):
        output = output.replace(str(copy.resolve()), str(original)).replace(str(copy), str(original))
    return re.sub(r"(?<=://)[^/\s@]+@", "***@", output)


def _uv() -> str:
    from uv import find_uv_bin

    try:
        return find_uv_bin()
    except FileNotFoundError as error:
        raise PackageError("uv is not installed in the environment of mlengine", hint="pip install uv") from error
