"""Finds Python interpreters on this machine with uv, without downloading any."""

from __future__ import annotations

import re
import subprocess
import sys

from mlengine.core.errors import BackendError

_SECONDS = 60.0


def find(version: str) -> str:
    """The path of an interpreter of ``version``: ``3``, ``3.12`` or ``3.12.4``.

    :raises BackendError: this machine has no such interpreter, or ``version`` is not a version.
    """
    if not re.fullmatch(r"\d+(\.\d+){0,2}", version):
        raise BackendError(f"not a version of Python: {version!r}", hint="write, for example, --python-version 3.12")
    own = ".".join(map(str, sys.version_info[:3]))
    if f"{own}.".startswith(f"{version}."):
        return sys.executable
    from uv import find_uv_bin

    command = [find_uv_bin(), "python", "find", "--no-python-downloads", "--no-project", "--system", version]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise BackendError(f"uv cannot search for Python {version}: {error}") from error
    if done.returncode:
        raise BackendError(
            f"there is no Python {version} on this machine; this is Python {own}",
            hint=f"install it (uv python install {version}), leave out --python-version, or train with "
            "--backend vertex, where the image has it",
        )
    return done.stdout.strip()
