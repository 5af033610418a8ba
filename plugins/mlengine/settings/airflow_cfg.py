"""The section ``[mlengine]`` of ``airflow.cfg``, read in the way Airflow reads it, without importing Airflow."""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from mlengine.core.errors import SettingError

_SECTION = re.compile(r"^\[mlengine\][^\n]*\n(.*?)(?=^\[|\Z)", re.MULTILINE | re.DOTALL)
_DEEPEST = 16  # a variable whose value names itself would never end


def config_file() -> Path:
    """Where Airflow's configuration file is, or would be."""
    named = os.environ.get("AIRFLOW_CONFIG")
    return Path(expand(named)) if named else airflow_home() / "airflow.cfg"


def airflow_home() -> Path:
    """``AIRFLOW_HOME``, or Airflow's own default for it."""
    return Path(expand(os.environ.get("AIRFLOW_HOME") or "~/airflow"))


def section(file: Path) -> Mapping[str, str]:
    """``[mlengine]`` of a configuration file; empty if there is no such file."""
    try:
        stat = file.stat()
    except OSError:
        return {}
    return _parsed(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _parsed(file: Path, modified: int, size: int) -> Mapping[str, str]:  # noqa: ARG001 they tell versions apart
    parser = configparser.ConfigParser()
    try:
        # Only this section: configparser takes 30 ms for the thousands of lines that a generated file has.
        for match in _SECTION.finditer(file.read_text(encoding="utf-8") + "\n"):
            parser.read_string(f"[mlengine]\n{match[1]}")
        values = dict(parser["mlengine"]) if parser.has_section("mlengine") else {}
    except (OSError, ValueError, configparser.Error) as error:
        raise SettingError(f"{file} cannot be read: {error}", hint="correct its section [mlengine]") from error
    return {name: expand(value) for name, value in values.items()}


def expand(value: str) -> str:
    """``value`` with variables and ``~`` expanded, also those in the expansion, as Airflow does it."""
    for _ in range(_DEEPEST):
        expanded = os.path.expanduser(os.path.expandvars(value))  # noqa: PTH111 not always a path
        if expanded == value:
            break
        value = expanded
    return value
