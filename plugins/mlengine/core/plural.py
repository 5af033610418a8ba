"""Counts in messages: ``1 file``, ``2 files``."""

from __future__ import annotations


def number_of(count: int | None, noun: str) -> str:
    """A number with its noun; ``None`` was not counted. The noun must form its plural with an s."""
    if count is None:
        return f"uncounted {noun}s"
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
