"""Parses the Logging query language to a tree of comparisons.

``NOT`` binds tightest, then ``OR``, then ``AND``, as documented: ``"a" OR NOT "b" AND NOT "c" OR "d"`` is
``("a" OR (NOT "b")) AND ((NOT "c") OR "d")``. A space or a new line between two comparisons is ``AND``. ``-`` is
``NOT``, ``--`` begins a comment. A value may be an expression: ``severity = (ERROR OR CRITICAL)``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from mlengine.core.errors import EmulatorApiError

MAX_LENGTH = 20_000
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_WORD = r"""[^\s()"'=<>!:,~.]+"""
_STRING = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
_PART = re.compile(rf"{_STRING}|{_WORD}", re.DOTALL)
_TOKEN = re.compile(
    rf"""(?:\s+|--[^\n]*)*(?:
      (?P<paren>[(),])
    | (?P<operator><=|>=|!=|=~|!~|=|<|>|:)
    | (?P<member>(?:{_STRING}|{_WORD}|\.)(?:\.|{_STRING}|{_WORD})*)
    | (?P<end>\Z)
    | (?P<other>.)
    )""",
    re.VERBOSE | re.DOTALL,
)
KEYWORDS = frozenset({"AND", "OR", "NOT"})


@dataclass(frozen=True)
class Comparison:
    """``path operator value``. The operator is one of ``= != < <= > >= : =~ !~``."""

    path: tuple[str, ...]
    operator: str
    value: str


@dataclass(frozen=True)
class Text:
    """A value without a field, which may occur in any field."""

    value: str


@dataclass(frozen=True)
class Not:
    """The negation of a node."""

    part: Node


@dataclass(frozen=True)
class And:
    """The conjunction of all parts; true if there are none."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Or:
    """The disjunction of all parts; false if there are none."""

    parts: tuple[Node, ...]


Node = Comparison | Text | Not | And | Or
TRUE, FALSE = And(()), Or(())


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    offset: int

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The parts of a path or a value, without quotation marks."""
        return tuple(_unquoted(match[0]) for match in _PART.finditer(self.text))

    @property
    def quoted(self) -> bool:
        return self.text[:1] in {'"', "'"}

    @property
    def value(self) -> str:
        """The token as a value: the content of a quoted string, or the unquoted token unchanged."""
        return self.parts[0] if self.quoted and len(self.parts) == 1 else self.text


def parse(text: str) -> Node:
    """Parse a filter. The empty filter is :data:`TRUE`.

    :raises EmulatorApiError: the filter is invalid. The error has the service's message if it is known.
    """
    if len(text) > MAX_LENGTH:
        raise EmulatorApiError(f"The filter must be at most {MAX_LENGTH} characters long.")
    try:
        return _Parser(text).read()
    except RecursionError as error:
        raise EmulatorApiError("Unparseable filter: the expression is nested too deeply.") from error


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [
            _Token(str(match.lastgroup), match[str(match.lastgroup)], match.start(str(match.lastgroup)))
            for match in _TOKEN.finditer(text)
        ]
        self._place = 0

    def read(self) -> Node:
        if self._peek().kind == "end":
            return TRUE
        found = self._all(self._restriction)
        if self._peek().kind != "end":
            self._fail()
        return found

    def _all(self, operand: Callable[[], Node]) -> Node:
        """Parse operands joined by ``AND``, which may be omitted."""
        parts = [self._any(operand)]
        while True:
            if self._accept("AND"):
                parts.append(self._any(operand))
            elif self._peek().kind == "end" or self._peek().text in {")", ",", "OR"}:
                return parts[0] if len(parts) == 1 else And(tuple(parts))
            else:
                parts.append(self._any(operand))

    def _any(self, operand: Callable[[], Node]) -> Node:
        parts = [self._negated(operand)]
        while self._accept("OR"):
            parts.append(self._negated(operand))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _negated(self, operand: Callable[[], Node]) -> Node:
        negated = False
        while self._accept("NOT") or self._accept_minus():
            negated = not negated
        if self._peek().kind == "paren" and self._peek().text == "(":
            self._place += 1
            inner = self._all(operand)
            if self._peek().text != ")":
                self._fail()
            self._place += 1
        else:
            inner = operand()
        return Not(inner) if negated else inner

    def _restriction(self) -> Node:
        """Parse a comparison, or a value without a field."""
        token = self._member()
        following = self._peek()
        if following.text == "(" and not token.quoted and following.offset == token.offset + len(token.text):
            raise EmulatorApiError(f"Unparseable filter: the emulator does not support the function {token.text}().")
        if self._peek().kind != "operator":
            return Text(token.value)
        path, operator = token.parts, self._next().text
        if not path or token.text.startswith(".") or token.text.endswith(".") or ".." in token.text:
            self._fail(token)

        def comparison() -> Node:
            return self._value(path, operator)

        is_expression = self._peek().kind == "paren" and self._peek().text == "("
        return self._negated(comparison) if is_expression else comparison()

    def _value(self, path: tuple[str, ...], operator: str) -> Node:
        token = self._member()
        if operator in {"=~", "!~"} and not token.quoted:
            line, column = self._position(token)
            raise EmulatorApiError(
                "Unparseable filter: regular expressions must begin and end with '\"'"
                f" at line {line}, column {column}, token '{token.text}'"
            )
        return Comparison(path, operator, token.value)

    def _member(self) -> _Token:
        token = self._next()
        if token.kind != "member" or token.text in KEYWORDS:
            self._fail(token)
        return token

    def _accept(self, word: str) -> bool:
        if self._peek().kind == "member" and self._peek().text == word:
            self._place += 1
            return True
        return False

    def _accept_minus(self) -> bool:
        """Accept ``-``, which may be written directly before the expression that it negates."""
        token = self._peek()
        if token.kind != "member" or not token.text.startswith("-"):
            return False
        if token.text == "-":
            self._place += 1
        else:
            self._tokens[self._place] = _Token("member", token.text[1:], token.offset + 1)
        return True

    def _peek(self) -> _Token:
        return self._tokens[self._place]

    def _next(self) -> _Token:
        token = self._tokens[self._place]
        if token.kind != "end":
            self._place += 1
        return token

    def _position(self, token: _Token) -> tuple[int, int]:
        before = self._text[: token.offset]
        return before.count("\n") + 1, token.offset - (before.rfind("\n") + 1) + 1

    def _fail(self, token: _Token | None = None) -> NoReturn:
        token = token or self._peek()
        line, column = self._position(token)
        shown = token.text if token.kind != "end" else "<EOF>"
        raise EmulatorApiError(f"Unparseable filter: syntax error at line {line}, column {column}, token '{shown}'")


def _unquoted(text: str) -> str:
    if text[:1] not in {'"', "'"}:
        return text
    # Keep unknown escapes unchanged, because regular expressions contain them.
    return re.sub(r"\\(.)", lambda hit: _unescaped(hit[1]), text[1:-1], flags=re.DOTALL)


def _unescaped(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    return letter if letter in "\"'\\" else "\\" + letter
