"""The header line of a CSV file: its delimiter and its names."""

from __future__ import annotations

import csv

from mlengine.datasets.sources import SourceFile, uncompressed

_DELIMITERS = (",", "\t", ";", "|")


def delimiter(file: SourceFile) -> str:
    """The delimiter that occurs most often in the header line."""
    with uncompressed(file) as stream:
        header = stream.read(64 << 10).split(b"\n", 1)[0].decode(errors="replace")
    return max(_DELIMITERS, key=lambda one: (header.count(one), one == ","))


def names(data: bytes, file: SourceFile) -> list[str]:
    """:param data: the beginning of the file."""
    line = data.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace").rstrip("\r")
    return next(csv.reader([line], delimiter=delimiter(file)), [])
