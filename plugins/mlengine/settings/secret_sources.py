"""Secrets from other sources than the settings: ``<NAME>_CMD`` and ``<NAME>_SECRET``, as in Airflow.

The value of a setting that is :attr:`~mlengine.settings.definitions.Setting.sensitive` may be the output of a command,
or a value in Airflow's secrets backend (``[secrets] backend``). Only the latter imports Airflow.
"""

from __future__ import annotations

import shlex
import subprocess

from mlengine.core.errors import SettingError

_SECONDS = 60.0


def of_command(command: str, source: str) -> str:
    """Run a command without a shell, and return its standard output without line breaks at the end.

    :param source: where the command was configured, for error messages.
    :raises SettingError: the command cannot be run, fails, or takes more than a minute. The message does not contain
        the command's standard output.
    """
    try:
        done = subprocess.run(
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise SettingError(f"{source}: the command cannot be run: {error}", hint="correct the command") from error
    if done.returncode:
        raise SettingError(
            f"{source}: the command ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}",
            hint="run the command manually, as the user of Airflow's processes",
        )
    return done.stdout.rstrip("\r\n")


def of_backend(path: str, source: str) -> str:
    """Read a value from Airflow's secrets backend.

    :param path: the value's name in the secrets backend.
    :param source: where that name was configured, for error messages.
    :raises SettingError: there is no secrets backend, it fails, or it does not have the value.
    """
    try:
        from airflow.configuration import get_custom_secret_backend

        backend = get_custom_secret_backend()
        value = None if backend is None else backend.get_config(path)
    except Exception as error:  # any error of the secrets backend's client
        raise SettingError(
            f"{source}: Airflow's secrets backend cannot be read: {error}",
            hint="check [secrets] backend and backend_kwargs in Airflow's configuration",
        ) from error
    if backend is None:
        raise SettingError(
            f"{source}: Airflow has no secrets backend for {path!r}",
            hint="set [secrets] backend in Airflow's configuration",
        )
    if value is None:
        raise SettingError(
            f"{source}: Airflow's secrets backend has no value {path!r}",
            hint="store the value there, or correct its name",
        )
    return str(value)
