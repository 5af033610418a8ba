"""The fields of a ``LogEntry`` that a filter may name, and the values that they are compared with.

A field that a ``LogEntry`` does not have is an error. The documentation calls the language case-insensitive, but does
not say whether that includes field names. Therefore only the API's spelling of names is accepted here.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from mlengine.core.errors import EmulatorApiError

SEVERITIES = {
    "DEFAULT": 0, "DEBUG": 100, "INFO": 200, "NOTICE": 300, "WARNING": 400, "ERROR": 500, "CRITICAL": 600,
    "ALERT": 700, "EMERGENCY": 800,
}  # fmt: skip
_NAMES = {value: name for name, value in SEVERITIES.items()}


class Kind(Enum):
    """The kind of a field, which determines how it is compared."""

    STRING = "a string"
    TIME = "a timestamp"
    SEVERITY = "a severity"
    BOOLEAN = "a boolean"
    MESSAGE = "a message"


# Below these names, an entry may have any field.
_OPEN = frozenset({"labels", "jsonPayload", "protoPayload", "otel"})
_OPEN_BELOW = frozenset({("resource", "labels"), ("metadata", "systemLabels"), ("metadata", "userLabels")})
_FIELDS: dict[tuple[str, ...], Kind] = {
    **{(name,): Kind.STRING for name in ("logName", "insertId", "trace", "spanId", "textPayload")},
    **{(name,): Kind.TIME for name in ("timestamp", "receiveTimestamp")},
    ("severity",): Kind.SEVERITY,
    ("traceSampled",): Kind.BOOLEAN,
    ("resource", "type"): Kind.STRING,
    **{("operation", name): Kind.STRING for name in ("id", "producer")},
    **{("operation", name): Kind.BOOLEAN for name in ("first", "last")},
    **{("sourceLocation", name): Kind.STRING for name in ("file", "line", "function")},
    **{("split", name): Kind.STRING for name in ("uid", "index", "totalSplits")},
    **{
        ("httpRequest", name): Kind.STRING
        for name in (
            *("requestMethod", "requestUrl", "requestSize", "status", "responseSize", "userAgent", "remoteIp"),
            *("serverIp", "referer", "latency", "cacheFillBytes", "protocol"),
        )
    },
    **{
        ("httpRequest", name): Kind.BOOLEAN
        for name in ("cacheLookup", "cacheHit", "cacheValidatedWithOriginServer")
    },
}  # fmt: skip
_MESSAGES = {path[:1] for path in _FIELDS if len(path) > 1} | {("metadata",), ("errorGroups",)}


def kind_of(path: tuple[str, ...]) -> Kind:
    """The kind of a field.

    :raises EmulatorApiError: a ``LogEntry`` has no such field.
    """
    if path in _FIELDS:
        return _FIELDS[path]
    if path[0] in _OPEN or path[:2] in _OPEN_BELOW:
        return Kind.STRING if len(path) > 1 + (path[:2] in _OPEN_BELOW) else Kind.MESSAGE
    if path in _MESSAGES:
        return Kind.MESSAGE
    raise EmulatorApiError(f"Unparseable filter: unknown field '{'.'.join(path)}' of LogEntry")


def is_defaulted(path: tuple[str, ...]) -> bool:
    """Whether a missing field compares as its default value. A missing payload field or label never matches."""
    return path in _FIELDS


def severity(name: str) -> int:
    """The rank of a severity.

    :raises EmulatorApiError: there is no such severity.
    """
    if name.upper() not in SEVERITIES:
        raise EmulatorApiError(f"Unparseable filter: '{name}' is not a value of LogSeverity")
    return SEVERITIES[name.upper()]


def severity_name(rank: int) -> str:
    """The name of a severity."""
    return _NAMES.get(rank, "DEFAULT")


_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\s*([Zz]|[+-]\d\d:\d\d)?)?")


def nanoseconds(stamp: Any) -> int:
    """Convert an RFC 3339 time or a date to nanoseconds since the epoch. Without a time zone, it is in UTC.

    :raises EmulatorApiError: the value is neither.
    """
    match = _STAMP.fullmatch(str(stamp).strip())
    problem = EmulatorApiError(f"Unparseable filter: '{stamp}' is not a timestamp in RFC 3339 format")
    if match is None:
        raise problem
    zone = match[4] if match[4] and match[4] not in "Zz" else "+00:00"
    try:
        delta = datetime.fromisoformat(f"{match[1]}T{match[2] or '00:00:00'}{zone}") - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise problem from error
    return (delta.days * 86400 + delta.seconds) * 10**9 + int((match[3] or "").ljust(9, "0"))
