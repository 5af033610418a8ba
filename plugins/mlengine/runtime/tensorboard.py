"""Runs TensorBoard with uv in a separate environment, not in Airflow's or the trainer's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mlengine.core.errors import EnvironmentBuildError
from mlengine.runtime.uv_env import index_options, uv_environment

# setuptools is limited because this TensorBoard imports pkg_resources, which later versions of setuptools lack.
REQUIREMENTS = ("tensorboard==2.20.0", "setuptools<81")
# Variables that TensorBoard inherits: package index settings, and no other credentials.
_ENV = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC")
_ENV_PREFIXES = ("LC_", "UV_", "PIP_")


def start(folder: Path, *, host: str = "127.0.0.1", port: int = 6006, seconds: float = 10.0) -> subprocess.Popen[bytes]:
    """Start TensorBoard on ``folder``, which it reloads every few seconds. The caller ends the process.

    :raises EnvironmentBuildError: uv is missing or cannot be started.
    """
    from uv import find_uv_bin

    env = {name: value for name, value in os.environ.items() if name in _ENV or name.startswith(_ENV_PREFIXES)}
    env |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    env = uv_environment(env)
    requirements = [word for requirement in REQUIREMENTS for word in ("--with", requirement)]
    command = [
        *(find_uv_bin(), "tool", "run", "--isolated", *index_options(env), *requirements),
        *("--from", REQUIREMENTS[0], "tensorboard", "--logdir", str(folder)),
        *("--host", host, "--port", str(port), "--reload_interval", str(int(seconds))),
    ]
    try:
        # They get a separate process group, so that uv and TensorBoard end together.
        return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        raise EnvironmentBuildError(
            f"TensorBoard cannot be started: {error}", hint="check that uv runs: uv --version"
        ) from error
