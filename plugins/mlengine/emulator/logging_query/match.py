"""Evaluates a filter for an entry.

String comparisons ignore case, except for regular expressions. ``:`` is "contains", and ``field:*`` is "is set".
Severities are ordered, and times are compared as times.
"""

from __future__ import annotations

import operator as operators
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator.logging_query import fields
from mlengine.emulator.logging_query.fields import Kind
from mlengine.emulator.logging_query.syntax import And, Comparison, Node, Not, Or, Text

Entry = Mapping[str, Any]
Matcher = Callable[[Entry], bool]
ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operators.eq,
    "!=": operators.ne,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}


def matcher(node: Node) -> Matcher:
    """A function that returns whether an entry matches a filter.

    :raises EmulatorApiError: a field, a value or an operator is invalid.
    """
    match node:
        case Comparison():
            return _comparison(node)
        case Text():
            needle = node.value.casefold()
            return lambda entry: any(needle in text.casefold() for text in _texts(entry))
        case Not():
            inner = matcher(node.part)
            return lambda entry: not inner(entry)
        case And():
            every = [matcher(part) for part in node.parts]
            return lambda entry: all(holds(entry) for holds in every)
        case Or():
            some = [matcher(part) for part in node.parts]
            return lambda entry: any(holds(entry) for holds in some)


def _comparison(node: Comparison) -> Matcher:
    path, kind = node.path, fields.kind_of(node.path)
    if node.operator == ":" and node.value == "*":
        return lambda entry: bool(_get(entry, path))
    test = _test(node, kind)
    default = {Kind.SEVERITY: "DEFAULT", Kind.TIME: "1970-01-01T00:00:00Z", Kind.BOOLEAN: "false"}.get(kind, "")
    defaulted = fields.is_defaulted(path)

    def holds(entry: Entry) -> bool:
        value = _get(entry, path)
        if value is None:
            return defaulted and test(default)
        return test(value)

    return holds


def _test(node: Comparison, kind: Kind) -> Callable[[Any], bool]:
    """A function that tests the value of a field."""
    if kind is Kind.MESSAGE:
        return _contains_below(node)
    if node.operator in {"=~", "!~"}:
        return _regular_expression(node)
    if kind is Kind.SEVERITY:
        rank, compare = fields.severity(node.value), ORDER["=" if node.operator == ":" else node.operator]
        return lambda value: compare(fields.SEVERITIES.get(value, 0), rank)
    if kind is Kind.TIME:
        moment, compare = fields.nanoseconds(node.value), _ordering(node)
        return lambda value: compare(fields.nanoseconds(value), moment)
    needle = node.value.casefold()
    if node.operator == ":":
        return lambda value: any(needle in text.casefold() for text in _texts(value))
    compare = ORDER[node.operator]
    return lambda value: compare(_text(value).casefold(), needle)


def _ordering(node: Comparison) -> Callable[[Any, Any], bool]:
    if node.operator not in ORDER:
        raise EmulatorApiError(
            f"Unparseable filter: operator '{node.operator}' cannot be used with the timestamp '{'.'.join(node.path)}'"
        )
    return ORDER[node.operator]


def _contains_below(node: Comparison) -> Callable[[Any], bool]:
    """The test of ``jsonPayload:text``, which matches if any field below contains the string."""
    if node.operator != ":":
        raise EmulatorApiError(
            f"Unparseable filter: operator '{node.operator}' cannot be used with the message '{'.'.join(node.path)}'"
        )
    needle = node.value.casefold()
    return lambda value: any(needle in text.casefold() for text in _texts(value))


def _regular_expression(node: Comparison) -> Callable[[Any], bool]:
    try:
        search = re.compile(node.value).search
    except (re.error, OverflowError, RecursionError) as error:
        raise EmulatorApiError(f"Unparseable filter: invalid regular expression: {error}") from error
    wanted = node.operator == "=~"
    return lambda value: (search(_text(value)) is not None) is wanted


def _get(entry: Entry, path: tuple[str, ...]) -> Any:
    value: Any = entry
    for place, name in enumerate(path):
        if not isinstance(value, Mapping):
            return None
        # A label's name may contain dots, as in labels.ml.googleapis.com/task_name without quotation marks.
        rest = ".".join(path[place:])
        if name not in value and rest in value:
            return value[rest]
        value = value.get(name)
    return value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _texts(value: Any) -> Iterator[str]:
    """All values in an entry, or in a part of an entry, as strings."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif value is not None:
        yield _text(value)
