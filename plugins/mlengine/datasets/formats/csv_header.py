"""The header line of a CSV file: its delimiter and its names."""

from __future__ import annotations

import csv
import io
import re

from mlengine.datasets.formats.text_encoding import not_utf8
from mlengine.datasets.sources import SourceFile, uncompressed

_DELIMITERS = (",", "\t", ";", "|")
_QUOTED = re.compile(r'(?:\A|(?<=[,\t;|]))"(?:[^"]|"")*"(?=[,\t;|\r\n]|\Z)')


def delimiter(file: SourceFile) -> str:
    """The delimiter that occurs most often in the header line, outside quotes."""
    with uncompressed(file) as stream:
        text = stream.read(64 << 10).decode("utf-8-sig", errors="replace")
    header = re.split(r"[\r\n]", _QUOTED.sub("", text), maxsplit=1)[0]
    return max(_DELIMITERS, key=lambda one: (header.count(one), one == ","))


def names(data: bytes, file: SourceFile) -> list[str]:
    """:param data: the beginning of the file.
    :raises DatasetError: a name is not UTF-8.
    """
    text = data.decode("utf-8-sig", errors="surrogateescape")
    found: list[str] = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(file)), [])
    if any("\udc80" <= character <= "\udcff" for name in found for character in name):
        raise not_utf8(file)
    return found
