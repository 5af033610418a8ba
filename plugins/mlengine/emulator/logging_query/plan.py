"""Determines which part of the log store a filter can match: the jobs, the severities and the times.

For one job and one severity, most comparisons of a filter are constant. The rest is usually a range of times, which is
read from the index. Any other comparison is evaluated entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlengine.emulator.logging_query import fields
from mlengine.emulator.logging_query.match import Matcher, matcher
from mlengine.emulator.logging_query.syntax import FALSE, TRUE, And, Comparison, Node, Not, Or, Text

EARLIEST, LATEST = -(2**62), 2**62
JOB_ID = ("resource", "labels", "job_id")
_TIMESTAMP = ("timestamp",)
Constants = Mapping[tuple[str, ...], str]


@dataclass(frozen=True)
class Range:
    """A time range of the entries of one job and one severity.

    :param first: the earliest time, in microseconds since the epoch.
    :param last: the latest time.
    :param matches: evaluates the rest of the filter for an entry; ``None`` if all entries in the range match.
    """

    first: int
    last: int
    matches: Matcher | None


class Plan:
    """The part of the log store that a filter can match.

    :raises EmulatorApiError: a field, a value or an operator is invalid.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        matcher(node)  # validates
        self._alternatives: dict[int, _Alternatives] = {}

    @cached_property
    def job_ids(self) -> frozenset[str] | None:
        """The case-folded ids of the jobs whose entries can match; ``None`` for all jobs."""
        return _job_ids(self._node)

    def range(self, constants: Constants) -> Range | None:
        """The range that can match among entries with these field values; ``None`` if no entry can match."""
        node = self._simplified(self._node, constants)
        if node == FALSE:
            return None
        first, last, exact = _times(node)
        return Range(first, last, None if exact else matcher(node)) if first <= last else None

    def _simplified(self, node: Node, constants: Constants) -> Node:
        match node:
            case Comparison():
                value = constants.get(node.path)
                if value is None:
                    return node
                return TRUE if matcher(node)(_nested(node.path, value)) else FALSE
            case Text():
                return node
            case Not():
                inner = self._simplified(node.part, constants)
                return FALSE if inner == TRUE else TRUE if inner == FALSE else Not(inner)
            case And():
                return _joined(And, [self._simplified(part, constants) for part in node.parts], TRUE, FALSE)
            case Or():
                parts = self._relevant(node, constants.get(JOB_ID, ""))
                return _joined(Or, [self._simplified(part, constants) for part in parts], FALSE, TRUE)

    def _relevant(self, node: Or, job_id: str) -> list[Node]:
        """The parts of an ``Or`` that can match entries of a job. A filter may have one part for each of 150 jobs."""
        found = self._alternatives.get(id(node))
        if found is None:
            found = self._alternatives[id(node)] = _Alternatives(node)
        return found.of(job_id.casefold())


class _Alternatives:
    def __init__(self, node: Or) -> None:
        self._of: dict[str, list[Node]] = {}
        self._always: list[Node] = []
        for part in node.parts:
            ids = _job_ids(part)
            if ids is None:
                self._always.append(part)
            for job_id in ids or ():
                self._of.setdefault(job_id, []).append(part)

    def of(self, job_id: str) -> list[Node]:
        return [*self._of.get(job_id, ()), *self._always]


def _job_ids(node: Node) -> frozenset[str] | None:
    match node:
        case Comparison(path=path, operator="=", value=value) if path == JOB_ID:
            return frozenset({value.casefold()})
        case And():
            found = [ids for part in node.parts if (ids := _job_ids(part)) is not None]
            return frozenset.intersection(*found) if found else None
        case Or():
            every = [_job_ids(part) for part in node.parts]
            known = [ids for ids in every if ids is not None]
            return frozenset().union(*known) if len(known) == len(every) else None
    return None


def _joined(kind: type[And] | type[Or], parts: list[Node], neutral: Node, absorbing: Node) -> Node:
    kept = [part for part in parts if part != neutral]
    if absorbing in kept:
        return absorbing
    return kept[0] if len(kept) == 1 else kind(tuple(kept))


def _times(node: Node) -> tuple[int, int, bool]:
    """The earliest and the latest time that can match, and whether every entry between them matches."""
    match node:
        case Comparison(path=path, operator=operator, value=value) if path == _TIMESTAMP and operator in _LIMITS:
            # Times of entries are in microseconds, but a filter may have nanoseconds.
            nanos = fields.nanoseconds(value)
            return _LIMITS[operator](nanos // 1000, -(-nanos // 1000))
        case And():
            parts = [_times(part) for part in node.parts]
            first = max((part[0] for part in parts), default=EARLIEST)
            return first, min((part[1] for part in parts), default=LATEST), all(part[2] for part in parts)
        case Or() if node.parts:
            parts = [_times(part) for part in node.parts]
            return min(part[0] for part in parts), max(part[1] for part in parts), False
    return EARLIEST, LATEST, False


# For each operator, the range, given the value in microseconds rounded down and rounded up.
_LIMITS: Mapping[str, Callable[[int, int], tuple[int, int, bool]]] = {
    ">=": lambda _down, up: (up, LATEST, True),
    ">": lambda down, _up: (down + 1, LATEST, True),
    "<=": lambda down, _up: (EARLIEST, down, True),
    "<": lambda _down, up: (EARLIEST, up - 1, True),
    "=": lambda down, up: (up, down, True),
}


def _nested(path: tuple[str, ...], value: str) -> dict[str, Any]:
    entry: Any = value
    for name in reversed(path):
        entry = {name: entry}
    found: dict[str, Any] = entry
    return found
