"""Runs extra checks, which are users' own functions, and identifies them in a report.

The report of a reused job is valid only if it was made with the same checks. So each check has a digest of its code
and of its arguments. The digest covers

* the function's code, defaults and closure, and the arguments of a :func:`functools.partial`
* constants and functions of the same module that the code refers to
* for an object with ``__call__``: that method and the object's attributes

It does not cover code in other modules. A check that holds a value without comparable content, such as an open
client, has no digest. It never equals another check, so its models are validated again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

from mlengine.core.verdict import Check

log = logging.getLogger(__name__)

# The parameters are the local folder with the model's files, and the values measured so far.
ExtraCheck = Callable[[Path, Mapping[str, Any]], Check]

_NAME_LENGTH = 100
# Airflow's prefix of the name of a DAG file's module. A DAG bundle with versions has another path for each version.
_DAG_FILE = re.compile(r"^unusual_prefix_[0-9a-f]{40}_")


class _NoDigestError(Exception):
    """A value has no comparable content."""


def run_check(check: ExtraCheck, model: Path, figures: Mapping[str, Any]) -> Check:
    """Run an extra check. An exception, or a result that is not a :class:`Check`, is a failed check."""
    name = check_name(check)
    try:
        result = check(model, figures)
    except Exception as error:  # users' code may raise anything
        log.warning("extra check %s raised", name, exc_info=True)
        return Check(name, None, "passes", passed=False, message=f"{name} raised {type(error).__name__}: {error}")
    if not isinstance(result, Check):
        text = f"{name} returned {type(result).__name__}, not mlengine.core.verdict.Check."
        return Check(name, None, "passes", passed=False, message=text)
    return result


def check_name(check: ExtraCheck) -> str:
    """The name of a check's function; for a partial, with its arguments: ``has_words(5, language='de')``."""
    if not isinstance(check, functools.partial):
        return str(getattr(check, "__name__", type(check).__name__))
    arguments = [repr(value) for value in check.args] + [f"{name}={value!r}" for name, value in check.keywords.items()]
    return f"{check_name(check.func)}({', '.join(arguments)})"[:_NAME_LENGTH]


def check_digest(check: ExtraCheck) -> str:
    """A digest of 40 hex digits; empty, with a warning, if the check holds a value without comparable content."""
    try:
        content = _Content().of(check)
    except _NoDigestError as error:
        log.warning(
            "extra check %s holds %s, which has no comparable content; models of reused jobs are validated again",
            check_name(check),
            error,
        )
        return ""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:40]


class _Content:
    """Converts values to JSON, so that different values have different JSON. Each function is visited once."""

    def __init__(self) -> None:
        self._functions: dict[int, int] = {}

    def of(self, value: Any) -> Any:
        """The content of a value.

        :raises _NoDigestError: ``value``, or a value inside it, has no comparable content.
        """
        for kinds, content in self._readers():
            if isinstance(value, kinds):
                return [type(value).__name__, content(value)]
        if is_dataclass(value) and not isinstance(value, type):
            return [_path(type(value)), [[item.name, self.of(getattr(value, item.name))] for item in fields(value)]]
        call = type(value).__dict__.get("__call__")
        if isinstance(call, types.FunctionType):
            return [_path(type(value)), self.of(call), self.of(dict(vars(value)))]
        raise _NoDigestError(f"a {type(value).__module__}.{type(value).__qualname__}")

    def _readers(self) -> tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...]:
        return (
            (Enum, lambda item: [_path(type(item)), item.name]),
            ((type(None), bool, int, float, complex, str, bytes, type(...), PurePath), repr),
            ((list, tuple), lambda items: [self.of(item) for item in items]),
            ((set, frozenset), lambda items: sorted(json.dumps(self.of(item)) for item in items)),
            (Mapping, self._mapping),
            (re.Pattern, lambda pattern: [pattern.pattern, pattern.flags]),
            (functools.partial, lambda item: [self.of(item.func), self.of(item.args), self.of(item.keywords)]),
            (types.FunctionType, self._function),
            (types.MethodType, lambda method: [self.of(method.__func__), self.of(method.__self__)]),
            (types.CodeType, self._code),
            ((types.BuiltinFunctionType, type, types.ModuleType), _path),
        )

    def _mapping(self, mapping: Mapping[Any, Any]) -> list[Any]:
        return sorted(([self.of(key), self.of(value)] for key, value in mapping.items()), key=json.dumps)

    def _function(self, function: types.FunctionType) -> Any:
        if id(function) in self._functions:
            return self._functions[id(function)]
        self._functions[id(function)] = len(self._functions)
        cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        return [
            function.__qualname__,
            self.of(function.__code__),
            self.of(function.__defaults__),
            self.of(function.__kwdefaults__),
            self.of(cells),
            [[name, self._global(function, name)] for name in sorted(set(_names(function.__code__)))],
        ]

    def _code(self, code: types.CodeType) -> list[Any]:
        return [code.co_code.hex(), list(code.co_names), list(code.co_varnames), self.of(code.co_consts)]

    def _global(self, function: types.FunctionType, name: str) -> Any:
        """The content of a global of the check's own module; for any other global its qualified name."""
        value = function.__globals__.get(name)
        if isinstance(value, types.FunctionType) and value.__globals__ is not function.__globals__:
            return _path(value)
        try:
            return self.of(value)
        except _NoDigestError:
            return _path(type(value))


def _names(code: types.CodeType) -> Iterable[str]:
    """The global names and attributes that the code and its inner functions refer to."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 raises if the variable has no value yet
    except ValueError:
        return False
    return True


def _path(value: Any) -> str:
    """The qualified name of a class, function or module, without the hash of a DAG file's path."""
    module = _DAG_FILE.sub("", str(getattr(value, "__module__", "")))
    return f"{module}.{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"
