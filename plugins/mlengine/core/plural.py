"""Counts in messages: ``1 file``, ``2 files``."""

from __future__ import annotations


def number_of(count: int, noun: str) -> str:
    """A number with its noun. The noun must form its plural with an s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
