"""Counts and lists in messages: ``1 file``, ``2 files``; ``a, b, …``."""

from __future__ import annotations

from collections.abc import Sequence


def number_of(count: int | None, noun: str) -> str:
    """A number with its noun; ``None`` was not counted. The noun must form its plural with an s."""
    if count is None:
        return f"uncounted {noun}s"
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def first_of(values: Sequence[object], most: int = 6) -> str:
    """The first ``most`` values, with ``…`` if there are more."""
    return ", ".join(map(str, values[:most])) + (", …" if len(values) > most else "")
