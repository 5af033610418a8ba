"""Numbers of things in messages: ``1 file``, ``2 files``."""

from __future__ import annotations


def number_of(count: int, noun: str) -> str:
    """The number with its noun, which forms its plural with an s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
