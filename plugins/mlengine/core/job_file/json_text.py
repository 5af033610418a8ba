"""Reads JSON with the line of each field. A YAML parser accepts most JSON, but not tabs or all escapes."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from mlengine.core.errors import JobFileError
from mlengine.core.job_file.located import Located

_BLANK = " \t\r\n"


def from_json(text: str, name: str) -> Located:
    """Parse JSON text.

    :raises ValueError: the text is not JSON; a :class:`json.JSONDecodeError` has the line.
    :raises JobFileError: an object has a key twice.
    """
    json.loads(text, parse_constant=_refuse)
    return _Reader(text, name).read(0, "", "")[0]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


class _Reader:
    """A second pass over text that is known to be JSON."""

    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name
        self._decoder = json.JSONDecoder()

    def read(self, begin: int, path: str, where: str) -> tuple[Located, int]:
        """The value that begins at or after ``begin``, and the position of its end.

        :param where: the line of the key, which errors report for a value of several lines.
        """
        begin = self._skip(begin)
        where = where or self._where(begin)
        if self._text[begin] == "{":
            items, end = self._members(begin, path)
            return Located(items, where, path), end
        if self._text[begin] == "[":
            found, end = self._elements(begin, path)
            return Located(found, where, path), end
        value, end = self._decoder.raw_decode(self._text, begin)
        return Located(value, where, path, value if isinstance(value, str) else self._text[begin:end]), end

    def _members(self, begin: int, path: str) -> tuple[dict[str, Located], int]:
        found: dict[str, Located] = {}
        begin = self._skip(begin + 1)
        while self._text[begin] != "}":
            key: Any
            key, end = self._decoder.raw_decode(self._text, begin)
            below = f"{path}.{key}" if path else key
            where = self._where(begin)
            if key in found:
                raise JobFileError(
                    f"{where}: {below}: is written twice, at {found[key].where} too", hint="keep one of them"
                )
            found[key], end = self.read(self._skip(end) + 1, below, where)
            begin = self._next(end)
        return found, begin + 1

    def _elements(self, begin: int, path: str) -> tuple[list[Located], int]:
        found: list[Located] = []
        begin = self._skip(begin + 1)
        while self._text[begin] != "]":
            item, end = self.read(begin, f"{path}[{len(found)}]", "")
            found.append(item)
            begin = self._next(end)
        return found, begin + 1

    def _next(self, end: int) -> int:
        """The position of the next key or element, or of the closing bracket."""
        end = self._skip(end)
        return self._skip(end + 1) if self._text[end] == "," else end

    def _skip(self, begin: int) -> int:
        while self._text[begin] in _BLANK:
            begin += 1
        return begin

    def _where(self, begin: int) -> str:
        return f"{self._name}:{self._text.count(chr(10), 0, begin) + 1}"
