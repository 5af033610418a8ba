"""Parses the filters of the list methods, which are AIP-160 as far as the services document it.

``OR`` binds tighter than ``AND``: ``a=1 AND b=2 OR c=3`` is ``a=1 AND (b=2 OR c=3)``. Two restrictions in a row mean
``AND``. ``NOT`` and ``-`` negate one restriction or one pair of parentheses. ``field:value`` is the operator "has",
with ``*`` as a wildcard; ``labels.key:*`` and ``labels:key`` mean that the key exists. Times are compared as times, and
other values as case-sensitive strings.

The parser rejects values without a field, functions, fields that the method does not document, and operators that it
does not document for the field. Cloud Logging has another language: :mod:`mlengine.emulator.logging_query`.
"""

from __future__ import annotations

import operator as operators
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mlengine.core.errors import EmulatorApiError
from mlengine.core.times import seconds

Lookup = Callable[[str], str | None]

# The operators that Vertex AI documents for the fields of customJobs.list, trainingPipelines.list and
# models.listVersions. The lists of ML Engine document none, and their examples use ``:`` for all fields.
VERTEX_OPERATORS: Mapping[str, str] = {
    "display_name": "= != :",
    "training_task_definition": "= != :",
    "state": "= !=",
    "create_time": "= != < <= > >=",
    "labels": "= :",
}
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<paren>[()])
    | (?P<operator><=|>=|!=|=|<|>|:)
    | (?P<minus>-(?=["(\w]))
    | (?P<member>[^\s()"'=<>!:,.-][^\s()"'=<>!:,.]*
        (?:\.(?:[^\s()"'=<>!:,.]+|"(?:[^"\\]|\\.)*"))*)
    )""",
    re.VERBOSE,
)
# A value may contain colons, as in times, and begin with a sign.
_VALUE = re.compile(r"""\s*(?P<value>[^\s()"'=<>!:,][^\s()"'=<>!,]*|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
_KEYWORDS = frozenset({"AND", "OR", "NOT"})
_TIME = re.compile(r"\d{4}-\d\d-\d\dT")
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}


@dataclass(frozen=True)
class Filter:
    """A condition on a resource. The empty filter matches every resource.

    :param matches: returns whether a resource matches, given a function that returns the value of a field.
    :param restrictions: the fields that the filter names, with their operators.
    """

    matches: Callable[[Lookup], bool]
    restrictions: frozenset[tuple[str, str]] = frozenset()


def parse(text: str, fields: Collection[str] | None = None, allowed: Mapping[str, str] | None = None) -> Filter:
    """Parse a filter.

    :param fields: the fields that the filter may name, in addition to ``labels.*``; ``None`` allows all.
    :param allowed: the operators of each field, by its name in snake_case; ``None`` allows all.
    :raises EmulatorApiError: the filter is invalid, or uses another field or operator.
    """
    if not text.strip():
        return Filter(lambda _: True)
    try:
        found = _Parser(text).read()
    except RecursionError as error:
        raise EmulatorApiError("Invalid filter: it is nested too deeply.") from error
    for name, operator in sorted(found.restrictions):
        label = name.startswith("labels.")
        if fields is not None and name not in fields and not label:
            raise EmulatorApiError(f"Invalid filter: field '{name}' cannot be filtered on in '{text}'.")
        known = None if allowed is None else allowed.get("labels" if label else _snake_case(name), "")
        if known is not None and operator not in known.split():
            raise EmulatorApiError(f"Invalid filter: operator '{operator}' is not supported for '{name}' in '{text}'.")
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        place, end = 0, len(text.rstrip())
        while place < end:
            is_value = bool(self._tokens) and self._tokens[-1][0] == "operator"
            match = (_VALUE.match(text, place) if is_value else None) or _TOKEN.match(text, place)
            if match is None:
                raise self._error()
            kind = str(match.lastgroup)
            self._tokens.append((kind, match[kind]))
            place = match.end()
        self._place = 0

    def read(self) -> Filter:
        found = self._all()
        if self._peek() is not None:
            raise self._error()
        return found

    def _all(self) -> Filter:
        """Parse restrictions joined by ``AND``, which may be omitted.

        Sequences bind tighter than ``AND``, and mean the same.
        """
        parts = [self._any()]
        while self._peek() not in {None, ("paren", ")")}:
            self._accept("AND")
            parts.append(self._any())
        conditions = [part.matches for part in parts]
        return parts[0] if len(parts) == 1 else Filter(lambda get: all(holds(get) for holds in conditions), _of(parts))

    def _any(self) -> Filter:
        parts = [self._term()]
        while self._accept("OR"):
            parts.append(self._term())
        conditions = [part.matches for part in parts]
        return parts[0] if len(parts) == 1 else Filter(lambda get: any(holds(get) for holds in conditions), _of(parts))

    def _term(self) -> Filter:
        if self._accept("NOT") or self._accept("-", "minus"):
            inner = self._simple()
            return Filter(lambda get: not inner.matches(get), inner.restrictions)
        return self._simple()

    def _simple(self) -> Filter:
        if self._accept("(", "paren"):
            inner = self._all()
            if not self._accept(")", "paren"):
                raise self._error()
            return inner
        (kind, member), operator, (value_kind, value) = self._next(), self._next(), self._next()
        if kind != "member" or member in _KEYWORDS or operator[0] != "operator" or value_kind != "value":
            raise self._error()
        return _restriction(_name(member), operator[1], _unquoted(value))

    def _accept(self, word: str, kind: str = "member") -> bool:
        if self._peek() == (kind, word):
            self._place += 1
            return True
        return False

    def _peek(self) -> tuple[str, str] | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        if token is None:
            raise self._error()
        self._place += 1
        return token

    def _error(self) -> EmulatorApiError:
        return EmulatorApiError(f"Invalid filter: '{self._text}'.")


def _restriction(name: str, operator: str, value: str) -> Filter:
    if name == "labels" and operator == ":":
        name, value = f"labels.{value}", "*"
    test = _test(name, operator, value)
    # A missing field is different from any value.
    return Filter(lambda get: _holds(get(name), test, missing=operator == "!="), frozenset({(name, operator)}))


def _holds(found: str | None, test: Callable[[str], bool], *, missing: bool) -> bool:
    return missing if found is None else test(found)


def _test(name: str, operator: str, value: str) -> Callable[[str], bool]:
    is_time = _snake_case(name).endswith("_time")
    if is_time and not _TIME.match(value):
        raise EmulatorApiError(f"Invalid filter: '{value}' is not a time in RFC 3339 format.")
    if is_time or (operator in _ORDER and _TIME.match(value)):
        moment = _seconds(value)
        compare = {**_ORDER, "=": operators.eq, "!=": operators.ne, ":": operators.eq}[operator]
        return lambda found: compare(_seconds(found), moment) if _TIME.match(found) else False
    if operator == ":":
        pattern = re.compile(".*".join(map(re.escape, value.split("*"))), re.DOTALL)
        return lambda found: pattern.fullmatch(found) is not None
    compare = {**_ORDER, "=": operators.eq, "!=": operators.ne}[operator]
    return lambda found: compare(found, value)


def _seconds(stamp: str) -> float:
    try:
        return seconds(stamp)
    except (ValueError, OverflowError) as error:
        raise EmulatorApiError(f"Invalid filter: '{stamp}' is not a time in RFC 3339 format.") from error


def _name(member: str) -> str:
    """A path without the quotation marks around its parts, as in ``labels."a key"``."""
    return re.sub(r'"((?:[^"\\]|\\.)*)"', lambda hit: _unquoted(hit[0]), member)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) if text[:1] in {'"', "'"} else text


def _snake_case(name: str) -> str:
    return re.sub("[A-Z]", lambda hit: "_" + hit[0].lower(), name)


def _of(parts: list[Filter]) -> frozenset[tuple[str, str]]:
    return frozenset().union(*(part.restrictions for part in parts))
