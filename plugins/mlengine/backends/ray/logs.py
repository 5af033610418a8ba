"""Reads the log that the driver wrote to the bucket, in pages, each line once.

A cursor is ``{"chunk": number, "line": number}``: the next line to read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from mlengine.backends import LogLine, LogPage
from mlengine.backends.ray.record import chunk_uri
from mlengine.core.errors import ObjectMissingError


class Reads(Protocol):
    """The one method of :class:`mlengine.storage.client.Storage` that this module uses."""

    def read(self, uri: str) -> bytes:
        """The content of an object; raises ObjectMissingError."""


def page(storage: Reads, own: str, cursor: Mapping[str, Any], limit: int) -> LogPage:
    """At most ``limit`` lines after ``cursor``.

    :param own: the job's folder in its job dir.
    """
    chunk, skip = _number(cursor, "chunk"), _number(cursor, "line")
    lines: list[LogLine] = []
    while len(lines) < limit:
        try:
            raw = storage.read(chunk_uri(own, chunk)).splitlines()
        except ObjectMissingError:
            # Chunks are written in order, so this one is the next to be written.
            return LogPage(tuple(lines), {"chunk": chunk, "line": skip})
        wanted = raw[skip : skip + limit - len(lines)]
        lines += [_line(text) for text in wanted]
        if skip + len(wanted) < len(raw):
            return LogPage(tuple(lines), {"chunk": chunk, "line": skip + len(wanted)}, more=True)
        chunk, skip = chunk + 1, 0
    return LogPage(tuple(lines), {"chunk": chunk, "line": skip}, more=True)


def _line(text: bytes) -> LogLine:
    data = json.loads(text)
    return LogLine(data["replica"], data["text"], data.get("time"))


def _number(cursor: Mapping[str, Any], name: str) -> int:
    value = cursor.get(name, 0)
    return value if isinstance(value, int) and value > 0 else 0
