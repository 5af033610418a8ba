"""Checks that text files are UTF-8. The error has the line of the first invalid byte."""

from __future__ import annotations

import codecs
import io

from mlengine.core.errors import DatasetError
from mlengine.datasets.sources import SourceFile, uncompressed

# UTF-32 first, because its byte order mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_AROUND = 12  # bytes that are shown before and after the invalid byte


def check_encoding(head: bytes, file: SourceFile) -> None:
    """Check for the byte order mark of another encoding.

    :param head: the beginning of the file.
    :raises DatasetError: the file is UTF-16 or UTF-32.
    """
    name = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if name is None and b"\0" in head[:2]:
        name = "UTF-16"
    if name is not None:
        raise DatasetError(
            f"{file.where} is {name}; text files must be UTF-8", hint=f"convert it: iconv -f {name} -t UTF-8 OLD > NEW"
        )


def not_utf8(file: SourceFile) -> DatasetError:
    """The error for a file that is not valid UTF-8."""
    return DatasetError(
        f"{file.where}{_place(file)}; text files must be UTF-8",
        hint="convert it from its encoding, such as Windows-1252: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW",
    )


def _place(file: SourceFile) -> str:
    with uncompressed(file) as stream:
        # Latin-1 decodes any byte.
        for number, text in enumerate(io.TextIOWrapper(io.BufferedReader(stream), encoding="latin-1", newline=""), 1):
            line = text.encode("latin-1")
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                at = error.start
                around = text[max(0, at - _AROUND) : at + _AROUND].strip()
                return f", line {number:,}: byte {at + 1} is 0x{line[at]:02x}, which is not UTF-8 (in {around!r})"
    return " is not UTF-8"
