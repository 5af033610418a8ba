"""All settings, and the order in which the sources of a value are searched.

The first source that has a value wins, both inside and outside Airflow's processes:

1. the argument of an operator, a backend or the command line,
2. the extra of the Airflow connection that the operator uses, for the settings that have :attr:`Setting.extra`,
3. Airflow's configuration: the variable ``AIRFLOW__MLENGINE__<NAME>``, then ``[mlengine] <name>`` in ``airflow.cfg``.
   In both places, the name of a sensitive setting may have the suffix ``_CMD`` or ``_SECRET`` (``_cmd`` or ``_secret``
   in the file); see :mod:`mlengine.settings.secret_sources`,
4. the default.

This module reads ``airflow.cfg`` itself, from the same path as Airflow (``AIRFLOW_CONFIG``, or ``airflow.cfg`` in
``AIRFLOW_HOME``, which is ``~/airflow`` by default). It does not import Airflow, so that the command line starts in a
tenth of a second.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlengine.core.errors import SettingError
from mlengine.settings.airflow_cfg import config_file, expand, option
from mlengine.settings.definitions import SETTINGS, Setting
from mlengine.settings.secret_sources import of_backend, of_command

__all__ = ["SETTINGS", "Found", "Setting", "check", "find", "get", "get_float", "get_int", "is_given"]

_FETCH: Mapping[str, Callable[[str, str], str]] = {"_CMD": of_command, "_SECRET": of_backend}


@dataclass(frozen=True)
class Found:
    """A setting's value, and a phrase for messages that says where it was found.

    :param is_default: whether no user has chosen the value. Airflow writes the defaults of all settings into a new
        ``airflow.cfg``, so a default in this file is not a choice.
    """

    value: str
    source: str
    is_default: bool = False


def find(name: str, argument: object = None, extra: Mapping[str, Any] | None = None) -> Found:
    """The value of a setting as a string, and its source.

    :param argument: the value that the caller was given; it is used if :func:`is_given` is true for it.
    :param extra: the extra of the connection that is in use, if any.
    :raises KeyError: there is no such setting.
    :raises SettingError: ``airflow.cfg`` cannot be read, or a secret cannot be fetched.
    """
    setting = SETTINGS[name]
    if is_given(argument):
        return Found(str(argument), f"the argument {name}")
    for key in setting.extra:
        if extra and extra.get(key) not in (None, ""):
            value = extra[key]
            text = json.dumps(value) if isinstance(value, Mapping) else str(value)
            return Found(text, f"the connection's extra {key!r}")
    configured, source = _configured(setting)
    if configured:
        in_file = setting.variable not in os.environ
        return Found(configured, source, is_default=in_file and configured == setting.default)
    return Found(setting.default, f"the default of {name}", is_default=True)


def _configured(setting: Setting) -> tuple[str, str]:
    """The value in Airflow's configuration and its source; the value is ``""`` if there is none."""
    variable, name = setting.variable, setting.name
    # A variable that is set but empty hides the file's value, as it does in Airflow.
    if variable in os.environ:
        return expand(os.environ[variable]), variable
    if setting.sensitive:
        for suffix, fetch in _FETCH.items():
            if (source := variable + suffix) in os.environ:
                return fetch(os.environ[source], source), source
    file = config_file()
    value = option(file, name)
    if setting.sensitive and not value:
        for suffix, fetch in _FETCH.items():
            if given := option(file, name + suffix.lower()):
                source = f"[mlengine] {name}{suffix.lower()} in {file}"
                return fetch(given, source), source
    return value, f"[mlengine] {name} in {file}"


def get(name: str, argument: object = None, extra: Mapping[str, Any] | None = None) -> str:
    """The value of a setting as a string. See :func:`find`."""
    return find(name, argument, extra).value


def is_given(argument: object) -> bool:
    """Whether an argument has a value. A template renders a missing value as the string ``None``."""
    return argument not in (None, "", "None")


def check(name: str, argument: object) -> None:
    """Check an argument for a number, without reading the configuration.

    :raises SettingError: the argument has a value that is not such a number, or is below the minimum.
    """
    if is_given(argument):
        read = get_int if SETTINGS[name].kind == "integer" else get_float
        read(name, argument)


def get_float(name: str, argument: object = None, extra: Mapping[str, Any] | None = None) -> float:
    """The value of a setting as a number. Durations are in seconds.

    :raises SettingError: the value is not a number, or is below the minimum. The error names the source.
    """
    found = find(name, argument, extra)
    try:
        number = float(found.value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise SettingError(f"{name} must be a number, not {found.value!r}", hint=f"correct {found.source}")
    if number < SETTINGS[name].minimum:
        raise SettingError(
            f"{name} must be at least {SETTINGS[name].minimum:g}, not {found.value}", hint=f"correct {found.source}"
        )
    return number


def get_int(name: str, argument: object = None, extra: Mapping[str, Any] | None = None) -> int:
    """The value of a setting as an integer. ``4.0`` is accepted.

    :raises SettingError: the value is not an integer, or is below the minimum. The error names the source.
    """
    number = get_float(name, argument, extra)
    if not number.is_integer():
        found = find(name, argument, extra)
        raise SettingError(f"{name} must be an integer, not {found.value}", hint=f"correct {found.source}")
    return int(number)
