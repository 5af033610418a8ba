"""Reads the delimiter and the column names from the header line of a CSV file."""

from __future__ import annotations

import csv
import io
import re
from itertools import chain

from mlengine.core.errors import DatasetError
from mlengine.datasets.formats.text_encoding import not_utf8
from mlengine.datasets.sources import SourceFile, uncompressed

END = "end of the file"  # appended as a last line; it is a separate row unless a quote is open
_DELIMITERS = (",", "\t", ";", "|")
_QUOTED = re.compile(r'(?:\A|(?<=[,\t;|]))"(?:[^"]|"")*"(?=[,\t;|\r\n]|\Z)')


def delimiter(file: SourceFile) -> str:
    """The delimiter that occurs most often in the header line, outside quotes."""
    with uncompressed(file) as stream:
        text = stream.read(64 << 10).decode("utf-8-sig", errors="replace").lstrip("\r\n")
    header = re.split(r"[\r\n]", _QUOTED.sub("", text), maxsplit=1)[0]
    return max(_DELIMITERS, key=lambda one: (header.count(one), one == ","))


def names(data: bytes, file: SourceFile) -> list[str]:
    """The column names in the header line.

    :param data: the beginning of the file.
    :raises DatasetError: a name is not UTF-8, or its quote is not closed.
    """
    text = data.decode("utf-8-sig", errors="surrogateescape")
    rows = csv.reader(chain(io.StringIO(text, newline=""), [END]), delimiter=delimiter(file))
    try:
        found: list[str] = next(filter(None, rows))
    except csv.Error:  # a name is longer than 128 KiB
        found = [END]
    if found[-1].endswith(END) and text.strip():
        raise DatasetError(
            f"{file.where}, line 1: a quote in the header line is not closed",
            hint='close it; write a quote in a name as ""',
        )
    if any("\udc80" <= character <= "\udcff" for name in found for character in name):
        raise not_utf8(file)
    return found if text.strip() else []
