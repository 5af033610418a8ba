"""Google's list filters: comparisons with AND, OR, NOT and parentheses, as far as clients of the job APIs use them.

``field=value``, ``!=``, ``<``, ``<=``, ``>``, ``>=``; ``field:value`` means "has", with ``*`` as a wildcard. Two
comparisons in a row mean AND. Times are compared as times, other values as strings.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from mlengine.core.errors import EmulatorApiError
from mlengine.core.times import seconds

Lookup = Callable[[str], str | None]

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<paren>[()])
    | (?P<operator><=|>=|!=|=|<|>|:)
    | "(?P<quoted>(?:[^"\\]|\\.)*)"
    | (?P<word>[^\s()"=<>!:]+)
    )""",
    re.VERBOSE,
)
# A value may contain colons, as times do.
_VALUE = re.compile(r"\s*(?P<word>[^\s()\"=<>!:][^\s()\"=<>!]*)")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT")


@dataclass(frozen=True)
class Filter:
    """A condition on a resource. The empty filter matches every resource.

    :param matches: whether a resource matches, given a function that returns the value of a field.
    :param fields: the fields that the filter names.
    """

    matches: Callable[[Lookup], bool]
    fields: frozenset[str] = frozenset()
    _equal: dict[str, str] = field(default_factory=dict)

    def equals(self, name: str) -> str | None:
        """The value that the field ``name`` must have for the filter to match; ``None`` if it may have several."""
        return self._equal.get(name)


def parse(text: str, fields: frozenset[str] | None = None) -> Filter:
    """Read a filter.

    :param fields: the fields that it may name, in addition to ``labels.*``; ``None`` allows all.
    :raises EmulatorApiError: the filter is invalid, or names another field.
    """
    if not text.strip():
        return Filter(lambda _: True)
    try:
        found = _Parser(text).read()
    except RecursionError as error:
        raise EmulatorApiError("Invalid filter: it is nested too deeply.") from error
    if fields is not None:
        for name in found.fields:
            if name not in fields and not name.startswith("labels."):
                raise EmulatorApiError(f"Invalid filter: field '{name}' cannot be filtered on in '{text}'.")
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
            value = match[kind]
            self._tokens.append((kind, re.sub(r"\\(.)", r"\1", value) if kind == "quoted" else value))
            place = match.end()
        self._place = 0

    def read(self) -> Filter:
        found = self._disjunction()
        if self._peek() is not None:
            raise self._error()
        return found

    def _disjunction(self) -> Filter:
        parts = [self._conjunction()]
        while self._accept("OR"):
            parts.append(self._conjunction())
        if len(parts) == 1:
            return parts[0]
        conditions = [part.matches for part in parts]
        return Filter(lambda get: any(holds(get) for holds in conditions), _fields(parts))

    def _conjunction(self) -> Filter:
        parts = [self._term()]
        while True:
            if self._accept("AND"):
                parts.append(self._term())
                continue
            following = self._peek()
            if following is None or following in {("paren", ")"), ("word", "OR")}:
                break
            parts.append(self._term())
        if len(parts) == 1:
            return parts[0]
        conditions = [part.matches for part in parts]
        equal = {name: value for part in parts for name, value in part._equal.items()}
        return Filter(lambda get: all(holds(get) for holds in conditions), _fields(parts), equal)

    def _term(self) -> Filter:
        if self._accept("NOT"):
            inner = self._term()
            return Filter(lambda get: not inner.matches(get), inner.fields)
        if self._peek() == ("paren", "("):
            self._place += 1
            inner = self._disjunction()
            if self._next() != ("paren", ")"):
                raise self._error()
            return inner
        name, operator, value = self._next(), self._next(), self._next()
        if name[0] != "word" or operator[0] != "operator" or value[0] not in {"word", "quoted"}:
            raise self._error()
        equal = {name[1]: value[1]} if operator[1] == "=" else {}
        return Filter(lambda get: _compare(get(name[1]), operator[1], value[1]), frozenset({name[1]}), equal)

    def _accept(self, word: str) -> bool:
        if self._peek() == ("word", word):
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


def _fields(parts: list[Filter]) -> frozenset[str]:
    return frozenset().union(*(part.fields for part in parts))


def _compare(found: str | None, operator: str, value: str) -> bool:
    if operator == ":":
        return found is not None and fnmatch.fnmatchcase(found, value)
    if found is None:
        return operator == "!="
    if operator == "=":
        return found == value
    if operator == "!=":
        return found != value
    left: float | str = found
    right: float | str = value
    if _TIME.match(found) and _TIME.match(value):
        try:
            left, right = seconds(found), seconds(value)
        except ValueError as error:
            raise EmulatorApiError(f"Invalid filter: '{value}' is not a time.") from error
    return {
        "<": left < right,  # type: ignore[operator]
        "<=": left <= right,  # type: ignore[operator]
        ">": left > right,  # type: ignore[operator]
        ">=": left >= right,  # type: ignore[operator]
    }[operator]
