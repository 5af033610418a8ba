"""Parse operator arguments that may be templates: a rendered template is a string where a DAG file has a value."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from mlengine.core.errors import MlengineError

_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "off", "0"})
_EMPTY = frozenset({"", "none"})
_NATIVE = "set render_template_as_native_obj=True on the DAG"


def flag(name: str, value: object, *, default: bool | None = None) -> bool:
    """Parse a boolean argument.

    :param default: the value for an empty field of the trigger form. Without a default, an empty field is an error.
    :raises MlengineError: the value is not a boolean.
    """
    text = str(value).strip().lower()
    if text in _EMPTY and default is not None:
        return default
    if text not in _TRUE | _FALSE:
        raise MlengineError(f"{name}={value!r}", hint="write True or False")
    return text in _TRUE


def fixed_flag(name: str, value: object) -> bool:
    """Check a boolean argument that is used when the DAG file is parsed, so that it cannot be a template.

    :raises MlengineError: the value is not a boolean. A string would count as true, whatever its template renders to.
    """
    if not isinstance(value, bool):
        raise MlengineError(f"{name} must be True or False, not {value!r}", hint=f"{name} cannot be a template")
    return value


def mapping(name: str, value: Any) -> dict[str, Any]:
    """Parse a mapping, or a JSON object in a string. Returns an empty mapping if no value is given.

    :raises MlengineError: the value is neither.
    """
    if _is_empty(value):
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise MlengineError(
                f"{name} is a string: {value!r}",
                hint=f"give a mapping; for a template, add | tojson to it, or {_NATIVE}",
            ) from error
    if not isinstance(value, Mapping):
        raise MlengineError(f"{name} is not a mapping: {value!r}", hint='write {"name": value}')
    return dict(value)


def items(name: str, value: Any) -> tuple[Any, ...]:
    """Parse a list and return its items.

    :raises MlengineError: the value is not a list; strings and mappings are not accepted either.
    """
    if value is None:
        return ()
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise MlengineError(f"{name} is not a list: {value!r}", hint=f"give a list; for a template, {_NATIVE}")
    return tuple(value)


def positive(name: str, value: Any) -> float | None:
    """Parse a number above 0. Returns ``None`` if no value is given.

    :raises MlengineError: the value is not such a number.
    """
    if _is_empty(value):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise MlengineError(f"{name}={value!r}", hint="write a number above 0")
    return number


def _is_empty(value: Any) -> bool:
    """Whether no value is given. An empty form field and a missing task result are rendered as strings."""
    return value is None or (isinstance(value, str) and value.strip() in {"", "None"})
