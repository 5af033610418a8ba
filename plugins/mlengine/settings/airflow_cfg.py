"""Reads the section ``[mlengine]`` of ``airflow.cfg`` by Airflow's rules, without importing Airflow."""

from __future__ import annotations

import configparser
import os
import re
from functools import lru_cache
from pathlib import Path

from mlengine.core.errors import SettingError

_SECTION = re.compile(r"^\[mlengine\][^\n]*\n(.*?)(?=^\[|\Z)", re.MULTILINE | re.DOTALL)
_NAME = "mlengine"
_DEEPEST = 16  # maximum number of expansions; a variable whose value contains itself would be expanded forever


def config_file() -> Path:
    """The path of Airflow's configuration file. The file need not exist."""
    named = os.environ.get("AIRFLOW_CONFIG")
    return Path(expand(named)) if named else airflow_home() / "airflow.cfg"


def airflow_home() -> Path:
    """The path in ``AIRFLOW_HOME``, or Airflow's default."""
    return Path(expand(os.environ.get("AIRFLOW_HOME") or "~/airflow"))


def option(file: Path, name: str) -> str:
    """An option of ``[mlengine]`` in a configuration file; empty if the file does not have it.

    Errors do not contain values, because values may be secret.

    :raises SettingError: the file or the option cannot be read.
    """
    try:
        stat = file.stat()
    except OSError:
        return ""
    parser = _parsed(file, stat.st_mtime_ns, stat.st_size)
    try:
        return expand(parser.get(_NAME, name, fallback=""))
    except configparser.InterpolationError as error:
        raise SettingError(
            f"{name} in [{_NAME}] of {file} contains an invalid % reference", hint="write %% for a literal %"
        ) from error


@lru_cache(maxsize=8)
def _parsed(file: Path, modified: int, size: int) -> configparser.ConfigParser:  # noqa: ARG001 part of the cache key
    parser = configparser.ConfigParser()
    try:
        # Parse only this section, because configparser takes 30 ms for the thousands of lines of a generated file.
        for match in _SECTION.finditer(file.read_text(encoding="utf-8") + "\n"):
            parser.read_string(f"[mlengine]\n{match[1]}")
    except configparser.ParsingError as error:
        lines = ", ".join(str(number - 1) for number, _ in error.errors)
        raise SettingError(
            f"{file} cannot be read: line {lines} of its section [{_NAME}] is not 'name = value'",
            hint="correct the line",
        ) from None
    except (OSError, ValueError, configparser.Error) as error:
        raise SettingError(f"{file} cannot be read: {error}", hint=f"correct its section [{_NAME}]") from error
    return parser


def expand(value: str) -> str:
    """Expand variables and ``~`` in ``value``, repeatedly as in Airflow: the result of an expansion is expanded too."""
    for _ in range(_DEEPEST):
        expanded = os.path.expanduser(os.path.expandvars(value))  # noqa: PTH111 not always a path
        if expanded == value:
            break
        value = expanded
    return value
