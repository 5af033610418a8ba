"""Read the fields of a manifest's JSON. Every error names the manifest and the field."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from mlengine.core.errors import DatasetError

MANIFEST_HINT = (
    "restore an earlier generation of the object; or delete it, and register the same data again with "
    "`mlengine datasets add`"
)

_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_CRC32C = re.compile(r"^[A-Za-z0-9+/]{6}==$")
_T = TypeVar("_T")


class Fields:
    """The fields of one JSON object.

    :param where: the object's name in error messages, such as ``gs://…/manifest.json: splits.train``.
    :raises DatasetError: ``data`` is not an object.
    """

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise DatasetError(f"{where} is not an object", hint=MANIFEST_HINT)
        self.data = data
        self.where = where

    def wrong(self, field: str, why: str) -> DatasetError:
        return DatasetError(f"{self.where}: {field}: {why}", hint=MANIFEST_HINT)

    def absent(self, field: str) -> bool:
        return self.data.get(field) is None

    def value(self, field: str) -> Any:
        if field not in self.data:
            raise self.wrong(field, "is missing")
        return self.data[field]

    def optional(self, field: str, read: Callable[[str], _T]) -> _T | None:
        """``read(field)``, or ``None`` if the field is missing or null."""
        return None if self.absent(field) else read(field)

    def text(self, field: str) -> str:
        value = self.value(field)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, f"{value!r} is not a non-empty string")
        return value

    def choice(self, field: str, choices: tuple[str, ...]) -> str:
        value = self.text(field)
        if value not in choices:
            raise self.wrong(field, f"{value!r} is not one of {', '.join(choices)}")
        return value

    def sha256(self, field: str) -> str:
        return self._matching(field, _SHA256, "64 hex digits")

    def crc32c(self, field: str) -> str:
        return self._matching(field, _CRC32C, "a CRC32C in base64")

    def _matching(self, field: str, pattern: re.Pattern[str], what: str) -> str:
        value = self.text(field)
        if not pattern.fullmatch(value):
            raise self.wrong(field, f"{value!r} is not {what}")
        return value

    def count(self, field: str, *, at_least: int = 0) -> int:
        value = self.value(field)
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            raise self.wrong(field, f"{value!r} is not an integer of at least {at_least}")
        return value

    def number(self, field: str) -> float:
        value = self.value(field)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.wrong(field, f"{value!r} is not a number")
        return value

    def flag(self, field: str) -> bool:
        value = self.value(field)
        if not isinstance(value, bool):
            raise self.wrong(field, f"{value!r} is not true or false")
        return value

    def items(self, field: str) -> list[Any]:
        value = self.value(field)
        if not isinstance(value, list):
            raise self.wrong(field, f"{value!r} is not a list")
        return value

    def counts(self, field: str, *, at_least: int = 0) -> tuple[int, ...]:
        """A non-empty list of integers."""
        value = self.value(field)
        if not isinstance(value, list) or not value:
            raise self.wrong(field, f"{value!r} is not a list of numbers")
        items = Fields({f"{field}[{index}]": item for index, item in enumerate(value)}, self.where)
        return tuple(items.count(key, at_least=at_least) for key in items.data)
